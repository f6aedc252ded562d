"""Pictures of a study: how images are windowed and hung, what is drawn on them, and PNG files."""
