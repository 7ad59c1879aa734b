"""What a tool answered: the whole of it and its pictures as files, and what the store keeps of it.

Works on the response as JSON, with the protocol's names: `content` (a list of text, image, audio,
resource_link and resource), `structuredContent`, `isError`
(https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result). Knows neither
the SDK nor a process. Writes files: not for the event loop.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from engine.files import private, write_private
from engine.secrets import redact
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STORED = 65_536
"""Bytes of a text, or of structured content, that go to the store; result.json has all of it."""
LARGEST = 64 * 1024 * 1024
"""Bytes of one file."""
_MOST = 100
"""Files of one response."""
_CUT = "\n… (cut; result.json has all of it)"

_ENDINGS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/zip": "zip",
    "text/plain": "txt",
    "text/html": "html",
    "text/csv": "csv",
}
"""No name of a file comes from a server: `a/../b` is a media type, too."""


def keep_response(
    folder: Path, response: Mapping[str, Any], secrets: Mapping[str, str]
) -> dict[str, Any]:
    """Write result.json and the files of a response into its run's folder, and return the result.

    That has `text` (all texts of the response, one below the other), `structuredContent` if there
    is some, `files` with their names, `links` with the addresses that it names, and `notes` on what
    could not be kept. What cannot be written costs a note and nothing else: the work is done.
    """
    response = _redacted(response, secrets)
    notes: list[str] = []
    content = [item for item in response.get("content", []) if isinstance(item, dict)]
    result: dict[str, Any] = {"text": _shortened("\n".join(_texts(content)))}
    structured = response.get("structuredContent")
    if structured is not None:
        if len(_json(structured)) <= STORED:
            result["structuredContent"] = structured
        else:
            notes.append("structuredContent is too long for the store; result.json has it")
    if files := list(_files(folder, content, notes)):
        result["files"] = files
    links = [item["uri"] for item in content if item.get("type") == "resource_link"]
    if links := [clean_text(str(link))[:2000] for link in links[:_MOST]]:
        result["links"] = links
    try:
        write_private(folder / "result.json", _json(response) + "\n")
    except OSError as error:
        notes.append(f"result.json could not be written: {error.strerror}")
    if notes:
        result["notes"] = notes
    return result


def _texts(content: list[dict[str, Any]]) -> Iterator[str]:
    for item in content:
        holder = item.get("resource", {}) if item.get("type") == "resource" else item
        if isinstance(text := holder.get("text"), str):
            yield text


def _shortened(text: str) -> str:
    """Return a text as the store takes it: harmless, and at most STORED bytes."""
    # What is cleaned away may be most of it, but nobody needs more than this much of that.
    shown = clean_text(text[: 4 * STORED], newlines=True)
    data = shown.encode()
    if len(data) <= STORED and len(text) <= 4 * STORED:
        return shown
    room = STORED - len(_CUT.encode())
    return data[:room].decode(errors="ignore") + _CUT


def _files(folder: Path, content: list[dict[str, Any]], notes: list[str]) -> Iterator[str]:
    """Write what is no text into files, and yield its name: image-1.png, audio-2.wav."""
    count = 0
    for index, item in enumerate(content):
        kind = item.get("type")
        holder = item.get("resource", {}) if kind == "resource" else item
        data = holder.get("blob" if kind == "resource" else "data")
        if kind not in {"image", "audio", "resource"} or not isinstance(data, str):
            continue
        count += 1
        where = f"content[{index}]"
        if count > _MOST:
            notes.append(f"more than {_MOST} files; the others are in result.json alone")
            return
        # Four characters are three bytes.
        if len(data) // 4 * 3 > LARGEST:
            notes.append(f"{where} is larger than {LARGEST} bytes; it is in result.json alone")
            continue
        mime = str(holder.get("mimeType", "")).partition(";")[0].strip().lower()
        name = f"{kind}-{count}.{_ENDINGS.get(mime, 'bin')}"
        try:
            # Line ends are common in base64; anything else that is not of it is a fault.
            plain = base64.b64decode("".join(data.split()), validate=True)
            with open(folder / name, "xb", opener=private) as file:
                file.write(plain)
        except binascii.Error as error:
            notes.append(f"{where} is no base64: {error}")
        except OSError as error:
            notes.append(f"{name} could not be written: {error.strerror}")
        else:
            yield name


def _redacted(value: Any, secrets: Mapping[str, str]) -> Any:
    """Return JSON with the secrets in its texts replaced."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, dict):
        return {redact(key, secrets): _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, secrets) for item in value]
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
