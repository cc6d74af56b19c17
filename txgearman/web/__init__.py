"""The server's web side: dashboard, HTTP for jobs and for programs.

Everything in this room reads views of the broker and calls its public verbs. It knows neither the protocol of
Gearman nor the server: what it needs of the server is in `interfaces`. `make_site` puts it together.
"""

from txgearman.web.http.site import LimitedSite, WebSite
from txgearman.web.root import make_site
from txgearman.web.settings import WebSettings

__all__ = ["LimitedSite", "WebSettings", "WebSite", "make_site"]
