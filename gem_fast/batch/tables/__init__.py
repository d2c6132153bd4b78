"""Images in Parquet and Arrow tables, as bytes in a column or as paths; `opening.open_table` is the way in."""
