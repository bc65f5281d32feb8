"""Tables as frames with captions, as text, and as HTML."""

from bayesglmm.tables.table import Table, table

__all__ = ["Table", "table"]
