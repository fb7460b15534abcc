"""Does a schema registry answer, and does it have the pipeline's schemas as they are here?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, ok, warning, wrong
from braidstream.errors import RetriableError, SettingsError
from braidstream.registry import COMPATIBILITY, RegistryClient, RegistryRefusal, client_for
from braidstream.settings import Settings

REGISTRY, SCHEMAS = "registry", "schemas"
PATIENCE = 5.0


def examine(case: Case) -> Iterator[Finding]:
    """The registry, and then the schemas."""
    settings = case.settings
    try:
        client = client_for(settings, PATIENCE)
    except SettingsError as error:
        yield wrong(REGISTRY, str(error))
        return
    if client is None:
        yield ok(REGISTRY, "none is set (SCHEMA_REGISTRY_URL): schema ids come from the files in schemas/")
        return
    try:
        client.compatibility(None)
    except RetriableError as error:
        yield wrong(REGISTRY, f"{error}: is SCHEMA_REGISTRY_URL right, with its path, and is it running?")
    except RegistryRefusal as error:
        yield _refusal(settings, error)
    else:
        yield ok(REGISTRY, f"answers at {settings.schema_registry_url}")
        yield from _schemas(case, client)


def _refusal(settings: Settings, error: RegistryRefusal) -> Finding:
    url = settings.schema_registry_url
    if error.status in (401, 403):
        said = f"refuses this user (HTTP {error.status}): see SCHEMA_REGISTRY_USER and SCHEMA_REGISTRY_PASSWORD"
    else:
        said = (
            f"does not answer as a registry ({error}): SCHEMA_REGISTRY_URL needs its path too, as in /apis/ccompat/v7"
        )
    return wrong(REGISTRY, f"{url} {said}")


def _schemas(case: Case, client: RegistryClient) -> Iterator[Finding]:
    texts = {topic.name: topic.event_type.latest.text for topic in case.pipeline.topics}
    subjects = {f"{case.settings.named(name)}-value": text for name, text in texts.items()}
    found: list[Finding] = []
    for subject, text in subjects.items():
        try:
            found += _schema(case, client, subject, text)
        except (RegistryRefusal, RetriableError) as error:
            found.append(wrong(SCHEMAS, f"{subject} could not be checked: {error}"))
    yield from found or [ok(SCHEMAS, f"all {len(subjects)} are registered, and their versions stay {COMPATIBILITY}")]


def _schema(case: Case, client: RegistryClient, subject: str, text: str) -> Iterator[Finding]:
    if client.find(subject, text) is None:
        if client.is_compatible(subject, text):
            yield warning(
                SCHEMAS, f"{subject} has not the version of this installation yet", case.command("topics create")
            )
        else:
            yield wrong(
                SCHEMAS,
                f"the schema of {subject} here is not compatible with the versions in the registry: workers refuse to "
                "start. Install the version of the code that they are from, or give the changed field a default",
            )
    elif (level := client.compatibility(subject)) != COMPATIBILITY:
        url = str(case.settings.schema_registry_url).rstrip("/")
        user = f"-u {case.settings.schema_registry_user} " if case.settings.schema_registry_user else ""
        body = shlex.quote(f'{{"compatibility": "{COMPATIBILITY}"}}')
        yield warning(
            SCHEMAS,
            f"{subject} takes versions that are only {level}, not {COMPATIBILITY}: old records, or other versions of "
            "the workers, may become unreadable",
            f"curl {user}-X PUT -H 'Content-Type: application/json' -d {body} {url}/config/{subject}",
        )
