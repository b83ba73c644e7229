"""A JSON object of any size, read member by member and entry by entry by the json of Python."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_PIECE = 2**22  # bytes that are read at a time
_MARK = b'\xef\xbb\xbf'
_SPACE = re.compile(r'[ \t\n\r]*')
# Characters after a value that have to be there for it to be whole: of `1.5e-7` also `1.5e-` can
# be the end of what was read so far, and of an escape in a text `\u12`.
_MARGIN = 32


class JsonStream:
    """The members of a JSON object, of which only one value is in memory at a time.

    Values are what `json.loads` makes of them, and what it refuses is refused. A consumer goes over
    `members`, and for each calls `value` or goes to the end of `items`.

    Args:
        file: File in UTF-8, opened in binary mode at its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rest = file, b''
        self._text, self._place = '', 0
        self._ended = False
        self._read = 0  # bytes of the file that are in the text or were
        self._anchor, self._anchor_byte = 0, 0  # a place in the text, and which byte of the file
        self._ascii = True
        self._scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
        first = file.read(len(_MARK))
        #: Whether a byte order mark stands before the JSON.
        self.starts_with_mark = first == _MARK
        if self.starts_with_mark:
            self._read = self._anchor_byte = len(_MARK)
        else:
            self._rest = first

    @property
    def offset(self) -> int:
        """How many bytes of the file come before what is read next."""
        if not self._ascii:
            passed = self._text[self._anchor : self._place].encode()
            self._anchor, self._anchor_byte = self._place, self._anchor_byte + len(passed)
        return self._anchor_byte + self._place - self._anchor

    def peek(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            if self._place < len(self._text):
                char = self._text[self._place]
                if char not in ' \t\n\r':
                    return char
                self._place = _SPACE.match(self._text, self._place).end()  # type: ignore[union-attr]
            elif self._ended:
                return ''
            else:
                self._more(_PIECE)

    def members(self) -> Iterator[str]:
        """The names of the members in turn; several may be the same, of which the last counts.

        Raises:
            ValueError: The file is no JSON, or no object.
        """
        more = self._begins('{', '}')
        while more:
            if self.peek() != '"':
                raise self._fault('Expecting property name enclosed in double quotes')
            key = self.value()
            self._take(':')
            self.peek()
            yield key
            more = self._goes_on('}')
        if self.peek():
            raise self._fault('Extra data')

    def items(self) -> Iterator[tuple[int, Any]]:
        """The entries of the list that is next, and the offset of the first byte of each.

        Raises:
            ValueError: It is no valid JSON.
        """
        more = self._begins('[', ']')
        while more:
            yield self.offset, self.value()
            # as most files have it, in a fraction of the time
            if self._text.startswith(', {', self._place):
                self._place += 2
            else:
                more = self._goes_on(']')
                self.peek()

    def value(self) -> Any:
        """The value that is next, at which `peek` stands.

        Raises:
            ValueError: It is no valid JSON.
            RecursionError: It is nested too deeply.
        """
        wanted = _PIECE
        while True:
            error = None
            try:
                found, end = self._scan(self._text, self._place)
            except StopIteration as stop:
                error = json.JSONDecodeError('Expecting value', '', 0)
                end = stop.value
            except json.JSONDecodeError as fault:
                error, end = fault, fault.pos
            cut = end + _MARGIN > len(self._text) or (error and 'Unterminated' in error.msg)
            if not cut or self._ended:
                if error is not None:
                    self._place = end
                    raise self._fault(error.msg)
                self._place = end
                return found
            self._more(wanted)
            wanted *= 2

    def _begins(self, opening: str, closing: str) -> bool:
        """Pass the opening bracket; whether there is anything before the closing one."""
        self._take(opening)
        if self.peek() != closing:
            return True
        self._place += 1
        return False

    def _goes_on(self, closing: str) -> bool:
        """Pass a comma or the closing bracket; whether it was a comma."""
        if self.peek() == closing:
            self._place += 1
            return False
        self._take(',')
        return True

    def _take(self, char: str) -> None:
        if self.peek() != char:
            raise self._fault(f'Expecting {char!r}')
        self._place += 1

    def _fault(self, what: str) -> ValueError:
        return ValueError(f'{what}: byte {self.offset:,}')

    def _more(self, wanted: int) -> None:
        """Read on, and drop what was passed."""
        self._anchor_byte, self._anchor = self.offset, 0
        new = self._file.read(wanted)
        self._ended = len(new) < wanted
        data = self._rest + new
        try:
            text, used = codecs.utf_8_decode(data, 'strict', self._ended)
        except UnicodeDecodeError as error:
            place = self._read + error.start
            raise NotUtf8(f'{error.reason} at byte {place:,}') from error
        self._read += used
        self._rest = data[used:]
        self._text = self._text[self._place :] + text
        self._place = 0
        self._ascii = self._text.isascii()


class NotUtf8(ValueError):
    """The file is no text in UTF-8."""
