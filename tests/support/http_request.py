"""One HTTP request, as a command for another network: METHOD URL SECONDS; body from stdin, answer to stdout.

It is tried again until the server listens, for so many seconds.
"""

from __future__ import annotations

import http.client
import sys
import time
import urllib.parse


def main() -> int:
    """Print the body of the answer; return 1, with the status on stderr, where it is an error."""
    method, url, seconds = sys.argv[1], urllib.parse.urlsplit(sys.argv[2]), float(sys.argv[3])
    body = sys.stdin.buffer.read()
    deadline = time.monotonic() + seconds
    while True:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=max(1.0, seconds))
        try:
            connection.request(method, url.path, body or None)
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 400:
        print(f"{method} {url.path}: {answer.status} {answer.reason} {content[:200]!r}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
