"""
A plugin package: modules here, and in a `cubehook/plugins` folder anywhere on the path, announce transports.

See `cubehook.interfaces.ITransportPlugin`.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
