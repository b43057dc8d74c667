"""
A plugin package, as `twisted.plugin` has them: each module announces transports.

The modules of other packages stand here, beside ours, where they are installed with cubehook; or in a
folder `cubehook/plugins` anywhere on the path, without an `__init__.py`.  See
`cubehook.interfaces.ITransportPlugin`.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
