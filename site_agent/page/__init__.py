"""The site's page in a browser: what this site is doing, what went wrong here, what has left.

    gpus        how full and how busy the GPUs are, where NVIDIA's library tells
    seen        what is read from a home, as values
    reading     reads a home beside its agent, which does not notice
    wording     text for the page: no path, no woman
    trouble     what is wrong here, worst first, with the next command
    headline    how things stand, in one line
    document    what was read -> what the page shows. Pure
    feeding     the thread that looks at the home, and puts what has changed on the board
    static/     the body of the document, its style and its scripts

Nothing here starts torch, opens an image or writes to the home.
"""
