"""Who this node is: one Ed25519 key that names it, signs its messages and proves it in TLS."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.types import PeerId
from p2ptrain.net.trust.private_files import read_private, write_private


class Identity:
    """The key of this node.

    peer: its public half, by which others know this node.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.peer = PeerId(key.public_key().public_bytes_raw())
        self._key = key

    @classmethod
    def create(cls) -> "Identity":
        """Make a new identity from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Read an identity file.

        Raises:
            ConfigError: it is missing, unreadable or damaged.
        """
        try:
            key = serialization.load_pem_private_key(read_private(path), password=None)
        except OSError as error:
            raise ConfigError(
                f"the identity file {path} cannot be read: {error.strerror}",
                "check the folder and its permissions",
            ) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                f"the identity file {path} is damaged",
                "restore it from a backup; or delete it, and join again as a new peer",
            )
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the identity file, readable by its owner only.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        write_private(path, self.private_pem())

    def sign(self, data: bytes) -> bytes:
        """Return a 64-byte signature."""
        return self._key.sign(data)

    def private_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS 8: for the identity file and for TLS only."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Say whether an Ed25519 signature is right; any garbage is simply wrong."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
