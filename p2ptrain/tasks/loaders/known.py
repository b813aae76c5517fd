"""The data sets that are known by name: their files, their checksums, and where they come from.

Addresses and MD5 are those that public loaders use (torchvision, PyTorch's examples, the publishers' pages),
looked up on 2026-11-20. SHA-256 are of the files without compression, taken from files whose official MD5
had been found right. Those of the files of CIFAR-100 have not met a real file here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Download:
    """A file as its publisher gives it away.

    name: under which it is kept; an archive ends in `.tar.gz` or `.zip`.
    urls: where it is, the best first.
    size: in bytes; 0: not known.
    digest: MD5 or SHA-256 in hex, of the file as it comes.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    digest: str

    @property
    def is_archive(self) -> bool:
        return self.name.endswith((".tar.gz", ".zip"))


@dataclass(frozen=True)
class Known:
    """A data set.

    title: what people call it.
    layouts: the files of it, in each of the forms it comes in. `.gz` may be there or not.
    folders: what the folder with them is called, by its publisher or by other programs; in the first one
        downloads are kept.
    digests: MD5 or SHA-256 in hex, of files without compression.
    mark: a small file of those, which tells this set from others with the same names of files.
    downloads: what to get where the set is missing.
    terms: what somebody must agree to first. Such a set is not downloaded: its owner gets it.
    system: folders where packages of the operating system put it.
    package: the one that does.
    """

    title: str
    layouts: tuple[tuple[str, ...], ...]
    folders: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""
    downloads: tuple[Download, ...] = ()
    terms: str = ""
    system: tuple[str, ...] = ()
    package: str = ""


IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PARTS = tuple(f"data_batch_{number}" for number in range(1, 6))

TORONTO = "https://www.cs.toronto.edu/~kriz/"
UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"


def _idx(bases: tuple[str, ...], sizes: tuple[int, ...], md5: tuple[str, ...]) -> tuple[Download, ...]:
    return tuple(
        Download(f"{name}.gz", tuple(f"{base}{name}.gz" for base in bases), size, digest)
        for name, size, digest in zip(IDX, sizes, md5, strict=True)
    )


SETS: dict[str, Known] = {
    "mnist": Known(
        "MNIST",
        (IDX,),
        ("mnist", "MNIST/raw", "MNIST"),
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        "t10k-labels-idx1-ubyte",
        _idx(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            (9912422, 28881, 1648877, 4542),
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
    ),
    "fashion_mnist": Known(
        "Fashion-MNIST",
        (IDX,),
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "fashion_mnist"),
        {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        "t10k-labels-idx1-ubyte",
        _idx(
            (
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
            (26421880, 29515, 4422102, 5148),
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
        system=("/usr/share/datasets/fashion-mnist",),
        package="dataset-fashion-mnist",
    ),
    "cifar10": Known(
        "CIFAR-10",
        ((*(f"{part}.bin" for part in PARTS), "test_batch.bin"), (*PARTS, "test_batch")),
        ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar10"),
        {
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
            "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
            "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
            "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
            "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
            "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
        },
        downloads=(
            Download(
                "cifar-10-binary.tar.gz",
                (f"{TORONTO}cifar-10-binary.tar.gz",),
                170052171,
                "c32a1d4ab5d03f1284b67883e8d87530",
            ),
        ),
    ),
    "cifar100": Known(
        "CIFAR-100",
        (("train.bin", "test.bin"), ("train", "test")),
        ("cifar-100-binary", "cifar-100-python", "cifar100"),
        {
            "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
            "test.bin": "4499cfba6c016c1be1438163640a0898",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
        downloads=(
            Download(
                "cifar-100-binary.tar.gz",
                (f"{TORONTO}cifar-100-binary.tar.gz",),
                168513733,
                "03b5dce01913d631647c71ecec9e9cb8",
            ),
        ),
    ),
    "tiny_imagenet": Known(
        "Tiny-ImageNet",
        (("wnids.txt", "val/val_annotations.txt"), ("tiny-imagenet-200.zip",)),
        ("tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet"),
        downloads=(
            Download(
                "tiny-imagenet-200.zip",
                ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
                248100043,
                "90528d7ca1a48142e341f4ef8d21d0de",
            ),
        ),
        terms="it may be used for research that is not commercial (image-net.org)",
    ),
    "shakespeare": Known(
        "tinyshakespeare",
        (("tinyshakespeare.txt",), ("input.txt",)),
        ("tinyshakespeare", "shakespeare", "shakespeare_char", "text"),
        dict.fromkeys(
            ("tinyshakespeare.txt", "input.txt"),
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
        downloads=(
            Download(
                "tinyshakespeare.txt",
                (
                    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
                    "/data/tinyshakespeare/input.txt",
                ),
                1115394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
    ),
    "census": Known(
        "Adult (census)",
        (("adult.data", "adult.test"),),
        ("adult", "census", "tabular"),
        {
            "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
        },
        downloads=(
            Download("adult.data", (f"{UCI}adult.data",), 3974305, "5d7c39d7b8804f071cdd1f2a7c460872"),
            Download("adult.test", (f"{UCI}adult.test",), 2003153, "35238206dfdf7f1fe215bbb874adecdc"),
        ),
    ),
    "textures": Known(
        "photographs of textures",
        (),
        ("textures", "dtd/images", "textures/dtd/images", "images"),
    ),
    "resnet20_cifar10": Known(
        "the published weights of ResNet-20",
        (("resnet20-12fca82f.th",),),
        ("weights", "resnet20-cifar10"),
        {"resnet20-12fca82f.th": "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"},
        downloads=(
            Download(
                "resnet20-12fca82f.th",
                (
                    "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
                    "/resnet20-12fca82f.th",
                ),
                1099231,
                "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
            ),
        ),
    ),
}
