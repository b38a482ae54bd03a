"""The commands of `cervix-study`, each loaded when it is called."""
