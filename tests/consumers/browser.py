"""A headless browser on pages that this machine serves: cases of a file by onnxruntime-web, or an example's page."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
# Tells what the page shows, or what failed on it.
WATCH = """<script>
  const tell = (text) => fetch("/finished", { method: "PUT", body: text });
  const counts = document.querySelector("#counts");
  new MutationObserver(() => tell(counts.textContent)).observe(counts, { childList: true });
  addEventListener("unhandledrejection", ({ reason }) => tell(`failed: ${reason}`));
  addEventListener("error", ({ message }) => tell(`failed: ${message}`));
</script>"""


def find_browser():
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def run_in_browser(browser, cases, packages, seconds):
    """Run the cases of a file; what they give lies where the file says, as it does for every consumer."""
    places = {"/cases.json": cases, "/page.html": HERE / "page.html", "/tensors.mjs": HERE / "tensors.mjs"}
    visit(browser, "/page.html", places, packages, seconds, outputs=cases.parent)


def show_page(browser, page, folder, image, packages, seconds):
    """What the element `counts` of a page shows for an image; files beside the page are those of the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        watched = Path(temporary, "page.html")
        watched.write_text(
            page.read_text(encoding="utf-8").replace("<script", f"{WATCH}\n<script", 1), encoding="utf-8"
        )
        places = {"/page.html": watched, "/image": image} | {f"/{each.name}": each for each in folder.iterdir()}
        return visit(browser, "/page.html?image=image", places, packages, seconds)


def visit(browser, address, places, packages, seconds, outputs=None):
    """Open a page on a free port, until it puts /finished; returns what it put.

    Args:
        places: files by their paths in addresses; others are files of the machine by their own paths where there is
            `outputs`, the folder that the page may put files into.
        packages: where node_modules lies.
    """
    finished, put = threading.Event(), []

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path):
            path = path.partition("?")[0]
            if path.startswith("/node_modules/"):
                return str(packages / path.lstrip("/"))
            return str(places.get(path, path if outputs else HERE / "none"))

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/finished":
                put.append(body.decode())
                finished.set()
            else:
                target = Path(self.path)
                assert outputs
                assert target.is_relative_to(outputs)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        full = f"http://127.0.0.1:{server.server_port}{address}"
        command = [browser, *OPTIONS, f"--user-data-dir={profile}", full]
        # A group of its own: Debian's command is a script, and the browser its child.
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        try:
            assert finished.wait(seconds), f"the page did not finish in {seconds} s"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
            server.shutdown()
    assert not put[0].startswith("failed: "), put[0]
    return put[0]
