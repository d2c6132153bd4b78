"""A headless browser that runs the cases of a file on a page of onnxruntime-web."""

import shutil
import subprocess
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


def find_browser():
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def run_in_browser(browser, cases, packages, seconds):
    """The page and its packages are served on a free port of this machine; files of the cases by their own paths."""
    finished = threading.Event()
    places = {"/cases.json": cases, "/page.html": HERE / "page.html", "/tensors.mjs": HERE / "tensors.mjs"}

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path):
            if path.startswith("/node_modules/"):
                return str(packages / path.lstrip("/"))
            return str(places.get(path, path))

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/finished":
                finished.set()
            else:
                target = Path(self.path)
                assert target.is_relative_to(cases.parent)
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
        address = f"http://127.0.0.1:{server.server_port}/page.html"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
        ]
        process = subprocess.Popen([browser, *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert finished.wait(seconds), f"the page did not finish in {seconds} s"
        finally:
            process.terminate()
            process.wait(20)
            server.shutdown()
