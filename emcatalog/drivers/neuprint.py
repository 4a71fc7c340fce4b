"""``em_neuprint``: a dataset on a neuPrint server as an Intake source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emcatalog.drivers.source import EntrySource

if TYPE_CHECKING:
    import neuprint

    from emcatalog.describe.page import Description
    from emcatalog.entries.neuprint import NeuprintArguments


class NeuprintSource(EntrySource):
    """The connectome as a service, through neuprint-python.

    The token is that of ``NEUPRINT_APPLICATION_CREDENTIALS``, and stands nowhere else.
    """

    name = "em_neuprint"
    container = "python"
    usage = "it is a service, which client(), fetch_neurons(...) and fetch_adjacencies(...) ask"
    arguments: NeuprintArguments

    def client(self, *, default: bool = True) -> neuprint.Client:
        """A ``neuprint.Client`` of the entry's server and dataset; one request is made.

        It holds the token (``client.token``), but shows it in no ``repr``, error or pickle.

        Args:
            default: whether it becomes the one that neuprint-python's functions use where they are given none: for as
                long as a variable holds it, and if it is the only one.

        Raises:
            MissingExtraError: neuprint-python is not installed.
            SourceDeniedError: there is no token, or the server refuses it.
            SourceError: the server cannot be reached, or does not have the dataset.
            NotCachedError: offline.
        """
        from emcatalog.neuprint_client import open_client

        model = self.arguments.neuprint
        return open_client(model.server, model.dataset, self.arguments.settings, default=default)

    read = client

    def fetch_neurons(self, criteria: Any = None, **options: Any) -> Any:
        """Frames of neurons, and of their synapses by region: ``neuprint.fetch_neurons``.

        Args:
            criteria: a ``neuprint.NeuronCriteria``, ids, or a type; None is every neuron.
            options: of ``neuprint.fetch_neurons``.

        Raises:
            SourceError: as ``client``; or the query failed.
        """
        return self._ask("fetch_neurons", criteria, **options)

    def fetch_adjacencies(self, sources: Any = None, targets: Any = None, **options: Any) -> Any:
        """Frames of neurons, and of the connections between them by region: ``neuprint.fetch_adjacencies``.

        Args:
            sources: criteria or ids of the presynaptic neurons; None is all.
            targets: of the postsynaptic ones.
            options: of ``neuprint.fetch_adjacencies``.

        Raises:
            SourceError: as ``client``; or the query failed.
        """
        return self._ask("fetch_adjacencies", sources, targets, **options)

    def _ask(self, function: str, *criteria: Any, **options: Any) -> Any:
        from emcatalog.neuprint_client import query_errors

        client = self.client(default=False)
        import neuprint

        with query_errors(client):
            return getattr(neuprint, function)(*criteria, client=client, **options)

    def about(self) -> Description:
        """What it is, for a person; asks no network."""
        from emcatalog.describe.neuprint import describe_neuprint

        return describe_neuprint(self.arguments)
