"""The formats of datasets, a module each, and what those kept in tables share: columns and labels."""

from importlib import import_module

# The one registered last is asked first: class folders take any folder that no other format wants.
for _name in ("class_folders", "manifest", "hugging_face"):
    import_module(f"{__name__}.{_name}")
