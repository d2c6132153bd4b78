"""Builds `gem-tiny`, the small CLIP that ships inside the package: icons -> scenes -> training -> export -> figures."""
