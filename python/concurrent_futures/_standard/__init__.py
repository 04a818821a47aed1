"""Stand-ins for modules of this package in interpreters that cannot load the engine.

The native module serves the first interpreter of a process. In another one (of mod_wsgi, say, or a
worker of ``InterpreterPoolExecutor``), the package offers the standard library's own classes and
functions under its own names. The parameters that only this package has are missing there.

The modules here are found in the place of those with the same names. That of processes is in
``_no_processes``.
"""
