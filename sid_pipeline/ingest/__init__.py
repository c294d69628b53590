"""Reading a catalogue as others write it: good rows go on, bad rows are kept with the rule they broke.

`products.read_products` and `offers.read_offers` give Spark frames in the layout of the tables;
`source_files.fingerprint` tells, without Spark, whether a source has changed; `rejections.check_rejections`
stops a run whose source is mostly bad.

A source as a whole that cannot be used is an `errors.InputError`: a missing or empty file, no rows, a file
that is not what its name says, a missing required column or one that was mapped by name, a nested column
where text is needed. Everything that is wrong with one row rejects that row alone. An optional value that
cannot be used (a price that is no number) is null, and listed.
"""
