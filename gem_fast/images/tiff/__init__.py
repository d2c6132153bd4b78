"""TIFF files of any depth, sign and layout, where Pillow fails or drops bits; `reader.open_tiff` is the way in."""
