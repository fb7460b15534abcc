"""The contract between the parts: Avro schemas (`<name>.v<version>.avsc`) and the pydantic models beside them.

A released version is never edited; a change is a new file with the next version, compatible with every earlier one
in both directions (FULL_TRANSITIVE).
"""
