"""What ComfyUI asks for: the list of nodes."""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from comfy_api.latest import ComfyExtension, io

from referencenet.comfyui import banks, refer, talk, tasks


class RefnetExtension(ComfyExtension):
    """The nodes of this package."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All of them."""
        return [*refer.NODES, *banks.NODES, *tasks.NODES, *talk.NODES]


async def comfy_entrypoint() -> RefnetExtension:
    """Called by ComfyUI when it loads the folder."""
    return RefnetExtension()
