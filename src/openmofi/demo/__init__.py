"""The built-in world: real entities drawn by code, photographed and captioned, with the truth."""
