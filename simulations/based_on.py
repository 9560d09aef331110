"""A scenario document that says only in what it differs from another one. Pure: documents in, a document out."""

from collections.abc import Mapping, Sequence

from privacy.errors import ConfigError

_OWN = ("name", "title")  # a run that called itself by another scenario's name would be mistaken for it


def merged(base: Mapping[str, object], changes: Mapping[str, object], *, where: str) -> dict[str, object]:
    """Returns the base document with the changes applied.

    Tables are merged key by key, however deep; one that names another ``kind`` is another thing and replaces the whole.
    Entries of ``sites`` change the site with their ``id``, which the base must have. Any other list or value replaces.
    Name and title are not taken over.

    Args:
      base: A document. Public.
      changes: What is different, without ``based_on``. Public.
      where: Prefix of messages, such as ``"clinics.toml: "``.

    Raises: ConfigError: A site that the base does not have, or twice the same.
    """
    kept = {key: value for key, value in base.items() if key not in _OWN}
    new = dict(changes)
    if "sites" in new:
        new["sites"] = _sites(base.get("sites"), new["sites"], where)
    return {**kept, **{key: _replaced(kept.get(key), value) for key, value in new.items()}}


def _replaced(old: object, new: object) -> object:
    if (
        not isinstance(old, Mapping)
        or not isinstance(new, Mapping)
        or new.get("kind", old.get("kind")) != old.get("kind")
    ):
        return new
    return {**old, **{key: _replaced(old.get(key), value) for key, value in new.items()}}


def _sites(old: object, new: object, where: str) -> object:
    if not isinstance(old, Sequence) or not isinstance(new, Sequence):
        return new  # refused with its place where documents are parsed
    known = [_id(site) for site in old if _id(site)]
    changes: dict[str, object] = {}
    for index, entry in enumerate(new):
        site = _id(entry)
        if site not in known or site in changes:
            problem = "is there twice" if site in changes else "is no site of the scenario this is based on"
            raise ConfigError(f"{where}sites[{index}].id: {site!r} {problem}", hint=f"Sites: {', '.join(known)}.")
        changes[site] = entry
    return [_replaced(site, changes.get(_id(site), {})) for site in old]


def _id(entry: object) -> str:
    named = entry.get("id") if isinstance(entry, Mapping) else None
    return named if isinstance(named, str) else ""
