"""The papers for the data protection officer, made from the site's home. Nothing of a patient is in them."""
