"""The manifest: tables as hospitals save them, women's identifiers, splits by woman. No image is opened here."""
