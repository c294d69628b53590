"""Settings: sources, precedence, and errors that name the key and the mend."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from sid_pipeline.keys import check_key
from sid_pipeline.settings import Settings, SettingsError, load_settings


def load(tmp_path: Path, text: str, env: dict[str, str] | None = None):
    file = tmp_path / "sid.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, env=env or {})


MINIMAL = '[source]\nproducts = "p.csv"\n'
NIGHTLY = '[source]\nproducts = "{snapshot}.csv"\n'


def test_the_default_is_the_sample():
    settings = load_settings(env={})
    assert settings.source.products.startswith("catalogue/{snapshot}/")
    assert settings.path("taxonomy.csv").is_file()
    assert set(settings.active_flavours) == {"esci", "esci_gemma"}


def test_relative_paths_count_from_the_file(tmp_path):
    settings = load(tmp_path, MINIMAL)
    assert settings.location("p.csv") == str(tmp_path / "p.csv")
    assert settings.location("s3a://bucket/p.csv") == "s3a://bucket/p.csv"
    assert settings.state == tmp_path / ".sid"


def test_environment_wins_over_the_file_and_is_typed(tmp_path):
    env = {
        "SID_REPORT__SAMPLE": "777",
        "SID_ORCHESTRATION__AUTOMATION": "true",
        "SID_SPARK__MASTER": "local[1]",
    }
    settings = load(tmp_path, NIGHTLY + "[report]\nsample = 500\n", env)
    assert settings.report.sample == 777
    assert settings.orchestration.automation is True
    assert settings.spark.master == "local[1]"


def test_a_partly_given_embedder_keeps_its_other_fields(tmp_path):
    settings = load(tmp_path, MINIMAL + '[embedders.gemma]\nmodel = "google/embeddinggemma-300m"\n')
    gemma = settings.embedders["gemma"]
    assert gemma.model == "google/embeddinggemma-300m"
    assert gemma.text == "cleaned"
    assert "{product_type}" in gemma.template


def test_the_embedders_of_a_flavour_are_replaced_not_mixed(tmp_path):
    settings = load(tmp_path, MINIMAL + "[flavours.esci_gemma.embedders]\nesci = 2.0\ngemma = 1.0\n")
    assert settings.flavours["esci_gemma"].embedders == {"esci": 2.0, "gemma": 1.0}
    settings = load(tmp_path, MINIMAL + "[flavours.esci.embedders]\ngemma = 1.0\n")
    assert settings.flavours["esci"].embedders == {"gemma": 1.0}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[sorce]\nproducts = 'p'\n", ["unknown setting 'sorce'", "did you mean 'source'"]),
        (MINIMAL + "[spark]\ndriver_mem = '2g'\n", ["'spark.driver_mem'", "did you mean 'driver_memory'"]),
        (
            MINIMAL + "[embedders.gemma]\ndtype = 'float16'\n",
            ["embedders.gemma.dtype", "float16 is refused", "float32, or bfloat16"],
        ),
        (MINIMAL + "[embedders.gemma]\nmodl = 'x'\n", ["'embedders.gemma.modl'", "did you mean 'model'"]),
        (MINIMAL + "[training]\nlambda = 1\n", ["'training'", "'lambda'", "lambda_contrastive"]),
        (MINIMAL + "[training]\nbatch_size = -1\n", ["batch_size", "-1"]),
        (MINIMAL + "[release]\ndefault = 'a/b'\n", ["release.default", "a/b"]),
        (
            MINIMAL + "[flavours.new]\ndescription = 'd'\nembedders = {nope = 1.0}\n",
            ["'nope'", "esci, gemma"],
        ),
        (MINIMAL + "[source.columns]\ntitle = ' '\n", ["source.columns.title", "must name a column"]),
        (MINIMAL + "encoding = 'utf-88'\n", ["source.encoding", "utf-88"]),
        ("state_dir = 'state'\n" + MINIMAL, ["state_dir must end in '.sid'"]),
        (
            MINIMAL + "".join(f"[embedders.{n}]\nvectors = '{n}'\ndimension = 3\nrevision = '1'\n" for n in ("a", "b")),
            ["embedders.a and embedders.b", "a revision of its own"],
        ),
        (MINIMAL + "[snapshots]\ntimezone = 'Mars/X'\n", ["snapshots.timezone", "Mars/X"]),
        (MINIMAL + "[embedders.esci]\ntemplate = ['{titel}']\n", ["embedders.esci", "{titel}"]),
        (MINIMAL + "[flavours]\nesci.enabled = false\nesci_gemma.enabled = false\n", ["at least one"]),
        (MINIMAL + "[cleaning]\nattributes = 'fashion_9'\n", ["no schema 'fashion_9'", "built in: grocery_1"]),
        (MINIMAL + "[embedders.gemma]\ntemplate = ['{colour}']\n", ["embedders.gemma.template", "'colour'"]),
        ("", ["source", "required"]),
        ("[source\n", ["no valid TOML"]),
    ],
)
def test_a_fault_names_the_key_and_what_is_allowed(tmp_path, text, parts):
    with pytest.raises(SettingsError) as error:
        load(tmp_path, text)
    for part in parts:
        assert part.lower() in str(error.value).lower()


def test_an_unknown_variable_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match=r"unknown setting 'spark\.cores'"):
        load(tmp_path, MINIMAL, {"SID_SPARK__CORES": "2"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml", env={})


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a'b", "a b", "x;drop", "é"])
def test_keys_cannot_leave_their_place(bad):
    with pytest.raises(ValueError, match="may hold"):
        check_key("release", bad)


def test_a_secret_in_a_settings_file_is_refused_and_names_its_variable(tmp_path):
    file = tmp_path / "sid.toml"
    file.write_text('[source]\nproducts = "p.csv"\n[alerts]\nwebhook = "https://hooks.example/s3cret"\n')
    with pytest.raises(SettingsError, match=r"'alerts.webhook': set SID_ALERTS__WEBHOOK") as fault:
        load_settings(file, env={})
    assert "s3cret" not in str(fault.value)
    file.write_text('[source]\nproducts = "p.csv"\n')
    settings = load_settings(file, env={"SID_ALERTS__WEBHOOK": "https://hooks.example/s3cret"})
    assert "s3cret" not in repr(settings) and "s3cret" not in settings.model_dump_json()
    assert settings.alerts.webhook.get_secret_value().endswith("s3cret")


def test_a_password_of_digits_is_one_and_no_message_shows_it(tmp_path):
    env = {"SID_ALERTS__SMTP_PASSWORD": "90210", "SID_ALERTS__SMTP_PORT": "none"}
    with pytest.raises(SettingsError, match="smtp_port") as fault:
        load(tmp_path, MINIMAL, env)
    assert "90210" not in str(fault.value)
    settings = load(tmp_path, MINIMAL, {"SID_ALERTS__SMTP_PASSWORD": "90210"})
    assert settings.alerts.smtp_password.get_secret_value() == "90210"


@pytest.mark.parametrize(
    "given",
    [
        "", "s3cret", "ftp://host/s3cret", "https:///s3cret", "https://host/s3cret with blanks", " https://host/s3cret",
        "https://host:s3cret/", "https://host:99999/s3cret", "https://s3cret:s3cret@host/", "https://host/s3crét",
    ],
)  # fmt: skip
def test_a_webhook_that_nobody_can_post_to_is_refused_and_not_shown(tmp_path, given):
    for env in ({"SID_ALERTS__WEBHOOK": given}, {"SID_ALERTS": f'{{webhook = "{given}"}}'}):
        with pytest.raises(SettingsError, match=r"'alerts\.webhook': must be the http:// or https://") as fault:
            load(tmp_path, MINIMAL, env)
        shown = "".join(traceback.format_exception(fault.value))
        assert "s3cret" not in shown and "s3cr\\xe9t" not in shown and "s3crét" not in shown


@pytest.mark.parametrize("given", ["https://hooks.example/T0/B0/x?y=z", "http://127.0.0.1:9/hook", "http://[::1]:9/"])
def test_a_webhook_is_an_address(tmp_path, given):
    assert load(tmp_path, MINIMAL, {"SID_ALERTS__WEBHOOK": given}).alerts.webhook.get_secret_value() == given


def test_lateness_ends_before_the_next_night_is_due(tmp_path):
    assert load(tmp_path, MINIMAL + "[alerts]\nlate_after_minutes = 1439\n").alerts.late_after_minutes == 1439
    with pytest.raises(SettingsError, match=r"late_after_minutes': must be less than 1440, a day"):
        load(tmp_path, MINIMAL + "[alerts]\nlate_after_minutes = 1440\n")


@pytest.mark.parametrize("name", ["products", "offers"])
def test_one_place_for_all_days_is_no_source_of_nights_that_run_by_themselves(tmp_path, name):
    text = NIGHTLY.replace("products", name) + ("" if name == "products" else 'products = "{snapshot}.csv"\n')
    env = {"SID_ORCHESTRATION__AUTOMATION": "true"}
    assert load(tmp_path, text, env).orchestration.automation
    fixed = text.replace(f'{name} = "{{snapshot}}.csv"', f'{name} = "p.csv"')
    assert not load(tmp_path, fixed).orchestration.automation
    with pytest.raises(SettingsError, match=rf"\[source\] {name} is 'p.csv', .* put {{snapshot}} .* into the path"):
        load(tmp_path, fixed, env)


@pytest.mark.parametrize(
    ("text", "env", "named"),
    [
        ('[source]\nproducts = "ftp://shop:hunter2@host/p.csv"\n', {}, "source.products"),
        (MINIMAL, {"SID_PUBLICATION__ROOT": "s3://key:hunter2@bucket/sid"}, "publication.root"),
        (MINIMAL, {"SID_CLEANING__BASE_URL": "https://:hunter2@llm.example/v1"}, "cleaning.base_url"),
    ],
)
def test_an_address_with_a_password_is_refused_without_showing_it(tmp_path, text, env, named):
    with pytest.raises(SettingsError, match=named) as fault:
        load(tmp_path, text, env)
    assert "hunter2" not in str(fault.value)


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str | None]]:
    """Every setting of a section and the sections in it, with its description."""
    for name, field in model.model_fields.items():
        parts = (field.annotation, *get_args(field.annotation))
        sections = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        for section in sections:
            yield from leaves(section, (*path, name))
        if not sections:
            yield ".".join((*path, name)), field.description


def test_every_setting_says_what_it_means():
    told = dict(leaves(Settings))
    assert "embedders.max_tokens" in told and "source.columns.title" in told
    # Those of a column map name the source's column for the field of their own name.
    silent = [name for name, description in told.items() if not description and "columns." not in name]
    assert silent == []
