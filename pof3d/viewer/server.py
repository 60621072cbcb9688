"""The web server: a page for every browser, and news of a training run."""

import logging
import threading
import time

import viser

from dnnlib import UserError
from pof3d.viewer.page import Page
from pof3d.viewer.source import NetworkSource

FOLLOW_SECONDS = 5.0  # between two looks into a run folder

log = logging.getLogger(__name__)


class Viewer:
    """Serves pages from its making until `stop`.

    Args:
        source: the network to show.
        host: address to listen on.
        port: the first one that may be used; a later one is taken where it is in use.
    """

    def __init__(self, source: NetworkSource, host: str = "localhost", port: int = 8080):
        self.source = source
        self._pages: dict[int, Page] = {}
        self._lock = threading.Lock()
        self.server = viser.ViserServer(host, port, label="PoF3D", verbose=False)
        # Sharing would open a tunnel to this machine from anywhere, whatever `host` says.
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.server.scene.set_up_direction("+y")
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)

    @property
    def port(self) -> int:
        """On which pages are served."""
        return self.server.get_port()

    def refresh(self) -> None:
        """Show the run's newest network in all browsers, if there is a new one."""
        try:
            changed = self.source.refresh()
        except UserError as error:  # as while a file is being replaced: the next look may find it
            log.warning("%s", error)
            return
        if changed:
            with self._lock:
                pages = list(self._pages.values())
            for page in pages:
                page.network_changed()

    def stop(self) -> None:
        """Close all pages and the server."""
        self.server.stop()
        with self._lock:
            pages, self._pages = self._pages, {}
        for page in pages.values():
            page.close()

    def _connect(self, client: viser.ClientHandle) -> None:
        page = Page(client, self.source)
        with self._lock:
            self._pages[client.client_id] = page
        if client.client_id not in self.server.get_clients():  # gone while the page was made
            self._disconnect(client)

    def _disconnect(self, client: viser.ClientHandle) -> None:
        with self._lock:
            page = self._pages.pop(client.client_id, None)
        if page is not None:
            page.close()


def serve(source: NetworkSource, host: str, port: int, follow: bool) -> None:
    """Serve until interrupted. follow: look for newer networks in the source's folder."""
    viewer = Viewer(source, host, port)
    try:
        while True:
            time.sleep(FOLLOW_SECONDS)
            if follow:
                viewer.refresh()
    finally:
        viewer.stop()
