"""What the coordinator's page shows: parts of a board, made of the status document, the journal and the home.

site_states    what a site is said to be doing, as a word and a mark
attention      what a person should look at, and whether a person is needed now
round_parts    the rounds, in numbers
status_parts   everything that follows from a status document
timeline       what each site did when, from the journal's events
home_parts     certificates, and the runs of the home
watching       the thread that fills the board
records        the downloads
static/        the body of the document, its style and its scripts
"""
