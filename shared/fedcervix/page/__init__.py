"""The page of a role in a browser: who may see it, what it shows, how a browser is told of changes.

A process of its own serves it. It only reads: there is nothing on the page that changes a federation.

    board          what the page shows, as one value, and the differences of two of them
    fanout         the streams of all browsers, from one board
    sessions       the address that works once, and who came by it
    guard          what every request must fulfil, and what every answer says
    doors          where the page listens: loopback, a Unix socket, TLS with client certificates
    app            the routes
    serving        the process: its socket, its end
    options        the options that both roles' commands have
    frame.html     the document of both roles, but its body
    static/        script, style and the library uPlot, as the browser gets them
"""
