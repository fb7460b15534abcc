"""What the parts exchange: Avro schemas, and the pydantic models beside them."""
