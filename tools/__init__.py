"""Programs for developers: figures of the code, the language check, the page of promises."""
