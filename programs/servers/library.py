"""A small MCP server over stdio: the catalogue of a village library, for the fifth notebook. `python library.py` serves it.

Three tools, two resources, one prompt. Loans are kept in memory: a server that is started again has all its books back.
"""

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

BOOKS = {
    1: ("The Voyage of the Beagle", "Charles Darwin", 1839, "nature travel"),
    2: ("Micrographia", "Robert Hooke", 1665, "nature optics"),
    3: ("The Histories", "Herodotus", -430, "history travel"),
    4: ("On Floating Bodies", "Archimedes", -250, "physics"),
    5: ("Walden", "Henry David Thoreau", 1854, "nature essay"),
}
LOANS: dict[int, str] = {}

server = MCPServer("library", instructions="The catalogue of a village library.")


def line(number: int) -> str:
    """One book in one line."""
    title, author, year, subjects = BOOKS[number]
    when = f"{year}" if year > 0 else f"{-year} BC"
    return f"{number}. {title} ({author}, {when}; {subjects})" + (f", lent to {LOANS[number]}" if number in LOANS else "")


def known(book: int) -> int:
    """The number of a book. Raises ToolError where there is none."""
    if book not in BOOKS:
        raise ToolError(f"there is no book {book}; the numbers are 1 to {len(BOOKS)}")
    return book


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def search(words: str) -> str:
    """Search."""
    wanted = words.lower().split()
    found = [line(number) for number, book in BOOKS.items() if all(word in " ".join(map(str, book)).lower() for word in wanted)]
    return "\n".join(found) or f"nothing with {words!r}"


@server.tool()
def lend(book: int, reader: str) -> str:
    """Lend a book to a reader."""
    if known(book) in LOANS:
        raise ToolError(f"book {book} is lent to {LOANS[book]} already")
    LOANS[book] = reader
    return line(book)


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def remove(book: int) -> str:
    """Take a book out of the catalogue for good."""
    title = BOOKS.pop(known(book))[0]
    return f"{title} is gone"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def statistics() -> dict[str, int]:
    """How many books there are, and how many are lent. (The notebook's program does not offer it to its model.)"""
    return {"books": len(BOOKS), "lent": len(LOANS)}


@server.resource("library://catalog", name="catalog", mime_type="text/plain", description="All books, one in a line")
def catalog() -> str:
    """All books."""
    return "\n".join(line(number) for number in BOOKS)


@server.resource("library://book/{number}", name="book", mime_type="text/plain", description="One book by its number")
def book(number: str) -> str:
    """One book."""
    return line(known(int(number)))


@server.prompt(description="Ask for something to read")
def recommend(reader: str, mood: str = "curious") -> str:
    """Words that ask for a recommendation."""
    return f"Recommend one book of the library to {reader}, who feels {mood}, in one sentence."


if __name__ == "__main__":
    server.run("stdio")
