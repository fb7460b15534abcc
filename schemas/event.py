"""What every event model has in common."""

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """An immutable Avro record; unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
