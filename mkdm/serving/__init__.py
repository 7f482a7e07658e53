"""`POST /rerank` over HTTP: a bounded queue before one scorer, and the follower's view before the queue.

May import `mkdm.export` and what is below it. The server library is Starlette on uvicorn, the extra `serve`.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.serving.ranked_view import RankedView
    from mkdm.serving.server import ServingSettings, default_name, serve
else:
    __all__, __getattr__, __dir__ = door(__name__)
