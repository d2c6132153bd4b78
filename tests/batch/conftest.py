"""Images as files' bytes."""

import io

import pytest


@pytest.fixture
def png(picture):
    def make(seed=0):
        buffer = io.BytesIO()
        picture(40, 64, seed).save(buffer, "PNG")
        return buffer.getvalue()

    return make
