"""The stand-in for ``concurrent_futures.process`` where the engine has no pools of processes.

That is on Windows, in a module that was built without them, and in interpreters that cannot load
the engine at all (see ``_standard``). The module here is found in the place of the one with the
same name.
"""
