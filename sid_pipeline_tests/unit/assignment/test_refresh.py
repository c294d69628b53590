"""What is refused before any Spark starts."""

import pytest

from sid_pipeline.assignment.refresh import refresh
from sid_pipeline.keys import KeyNotAllowed, check_key
from sid_pipeline.resources.tables import Tables

BAD_KEYS = ("a/b", "it's", 'say "x"', "r1' OR '1'='1", "r1; DROP TABLE x", "r1\n", "..", "")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_with_slashes_quotes_or_sql_are_refused(tmp_path, key):
    tables = Tables(tmp_path, lambda: pytest.fail("Spark was asked for"))
    for slice in ({"flavour": "esci", "release": key}, {"flavour": key, "release": "r1"}):
        with pytest.raises(KeyNotAllowed, match="may hold letters"):
            refresh(tables, None, None, **slice)
    with pytest.raises(KeyNotAllowed):
        check_key("release", key)
