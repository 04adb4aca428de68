"""The document as one HTML page without scripts. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

STYLE_URL: Final = "/api/docs/style.css"

Json = Mapping[str, Any]

_LIMITS: Final = {
    "minimum": "at least",
    "maximum": "at most",
    "minLength": "characters, at least",
    "maxLength": "characters, at most",
    "minItems": "entries, at least",
    "maxItems": "entries, at most",
    "default": "default",
}
_CODE = re.compile(r"`([^`]+)`")


def render_page(document: Json, prefix: str) -> str:
    """Return all operations by tag, then the schemas, each with an anchor. ``prefix`` starts links to other pages."""
    return "\n".join(_Page(document, prefix).lines())


class _Page:
    def __init__(self, document: Json, prefix: str) -> None:
        self._document = document
        self._prefix = escape(prefix)
        self._components: Json = document["components"]
        self._shown: dict[str, str] = {}

    def lines(self) -> Iterator[str]:
        info = self._document["info"]
        title = f"{escape(info['title'])} {escape(info['version'])}"
        yield (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f'<title>{title}: HTTP API</title>\n<link rel="stylesheet" href="{self._prefix}{STYLE_URL}">\n'
            "</head>\n<body>"
        )
        yield '<a class="skip" href="#operations">Skip to the operations</a>'
        yield f"<header><h1>{title}</h1><p>{escape(info['summary'])}.</p></header>"
        yield from self._contents()
        yield f'<main id="operations">{_prose(info["description"])}'
        yield f'<p>The same for programs: <a href="{self._prefix}/api/docs.json">OpenAPI 3.1</a>.</p>'
        yield from self._security()
        for tag in self._document["tags"]:
            yield f'<section><h2 id="{_anchor(tag["name"])}">{escape(tag["name"])}</h2>{_prose(tag["description"])}'
            for path, method, operation in self._operations(tag["name"]):
                yield from self._operation(path, method, operation)
            yield "</section>"
        yield '<section><h2 id="schemas">Schemas</h2>'
        for name, schema in sorted(self._components["schemas"].items()):
            yield f'<article><h3 id="schema-{escape(name)}">{escape(name)}</h3>{self._schema(schema)}</article>'
        yield "</section></main>\n</body>\n</html>"

    def _contents(self) -> Iterator[str]:
        yield '<nav aria-label="Contents"><ul>'
        for tag in self._document["tags"]:
            yield f'<li><a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a><ul>'
            for _path, _method, operation in self._operations(tag["name"]):
                yield f'<li><a href="#{operation["operationId"]}">{escape(operation["summary"])}</a></li>'
            yield "</ul></li>"
        yield '<li><a href="#schemas">Schemas</a></li></ul></nav>'

    def _operations(self, tag: str) -> Iterator[tuple[str, str, Json]]:
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                if tag in operation["tags"]:
                    yield path, method, operation

    def _security(self) -> Iterator[str]:
        if "securitySchemes" in self._components:
            yield (
                "<p>Operations marked <em>key</em> need the API key: header <code>x-api-key</code>, or "
                "<code>Authorization: Bearer</code>.</p>"
            )

    def _operation(self, path: str, method: str, operation: Json) -> Iterator[str]:
        key = ' <em class="key">key</em>' if operation.get("security") else ""
        yield f'<article><h3 id="{operation["operationId"]}">{escape(operation["summary"])}{key}</h3>'
        yield f'<p class="call"><b>{method.upper()}</b> <code>{escape(path)}</code></p>'
        yield _prose(operation["description"])
        if parameters := operation.get("parameters"):
            rows = [
                f"<tr><th scope=row><code>{escape(each['name'])}</code><td>{escape(each['in'])}"
                f"<td>{_inline(each['description'])} {self._type(each['schema'])}"
                for each in parameters
            ]
            yield f"<h4>Parameters</h4>{_table(('name', 'in', 'meaning'), rows)}"
        if body := operation.get("requestBody"):
            yield "<h4>Body</h4>"
            for media_type, content in body["content"].items():
                yield f"<p><code>{escape(media_type)}</code>: {self._type(content['schema'])}</p>"
                yield from self._examples(content, f"{operation['operationId']}-body")
        yield "<h4>Replies</h4><dl>"
        for status, reply in operation["responses"].items():
            yield from self._reply(status, self._resolve(reply), f"{operation['operationId']}-{status}")
        yield "</dl></article>"

    def _reply(self, status: str, reply: Json, anchor: str) -> Iterator[str]:
        headers = ", ".join(f"<code>{escape(name)}</code>" for name in reply.get("headers", ()))
        kinds = [self._type(content["schema"]) for content in reply.get("content", {}).values()]
        kind = f" {' '.join(kinds)}." if kinds else ""
        yield f"<dt>{status}<dd>{_inline(reply['description'])}{kind} <small>{headers}</small>"
        for content in reply.get("content", {}).values():
            yield from self._examples(content, anchor)

    def _examples(self, content: Json, anchor: str) -> Iterator[str]:
        """Yield each example once, and a link instead of a repetition."""
        alone = {"": {"value": content["example"]}} if "example" in content else {}
        for name, example in (content.get("examples") or alone).items():
            title = f"Example{f': {escape(name)}' if name else ''}"
            text = _code(example["value"])
            if text in self._shown:
                yield f'<p>{title}: <a href="#{self._shown[text]}">see there</a></p>'
            else:
                place = self._shown[text] = f"{anchor}-{name or 'example'}"
                yield f'<details id="{place}"><summary>{title}</summary>{text}</details>'

    def _resolve(self, reply: Json) -> Json:
        if "$ref" not in reply:
            return reply
        kind, name = reply["$ref"].split("/")[-2:]
        found: Json = self._components[kind][name]
        return found

    def _schema(self, schema: Json) -> str:
        text = _prose(schema["description"]) if "description" in schema else ""
        if "properties" not in schema:
            return text + f"<p>{self._type(schema)}</p>"
        required = schema.get("required", ())
        rows = [
            f"<tr><th scope=row><code>{escape(name)}</code>{'' if name in required else ' <small>optional</small>'}"
            f"<td>{self._type(member)}<td>{_inline(member.get('description', ''))}"
            for name, member in schema["properties"].items()
        ]
        return text + _table(("member", "type", "meaning"), rows)

    def _type(self, schema: Json) -> str:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
        for kind in ("anyOf", "oneOf"):
            if kind in schema and "properties" not in schema:
                return " or ".join(self._type(choice) for choice in schema[kind])
        if "const" in schema:
            return f"<code>{escape(json.dumps(schema['const']))}</code>"
        if "enum" in schema:
            return " ".join(f"<code>{escape(str(choice))}</code>" for choice in schema["enum"])
        if "properties" in schema:
            return "object: " + ", ".join(
                f"<code>{escape(name)}</code> {self._type(member)}" for name, member in schema["properties"].items()
            )
        kinds = schema.get("type", "anything")
        text = " or ".join(kinds) if isinstance(kinds, list) else kinds
        if "items" in schema:
            text = f"array of {self._type(schema['items'])}"
        limits = [f"{words} {escape(json.dumps(schema[name]))}" for name, words in _LIMITS.items() if name in schema]
        if "pattern" in schema:
            limits.append(f"<code>{escape(schema['pattern'])}</code>")
        return text + (f" ({', '.join(limits)})" if limits else "")


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
    return f"<pre tabindex=0><code>{escape(text, quote=False)}</code></pre>"


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f"<th scope=col>{name}" for name in heads)
    return f"<div class=wide tabindex=0><table><thead><tr>{head}<tbody>{''.join(rows)}</table></div>"


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n"))


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def _anchor(tag: str) -> str:
    return f"tag-{tag.lower()}"
