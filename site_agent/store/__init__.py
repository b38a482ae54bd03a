"""What a site keeps in its home folder: runs, models, reports, and what each of them is based on."""
