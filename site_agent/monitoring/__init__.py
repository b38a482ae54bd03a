"""What a site does, as metrics: a pure function of what its page shows. They stay at the site."""
