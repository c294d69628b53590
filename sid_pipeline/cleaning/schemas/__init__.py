"""The schemas of cleaned products, one versioned module each; a changed meaning is a new module, not an edit.

Belongs here: pydantic models and nothing else. How a schema becomes a response schema, table columns and docs is in
`sid_pipeline.cleaning.schema`.
"""
