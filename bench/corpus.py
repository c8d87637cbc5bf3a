"""A deterministic set of images, written straight into the storage folder of a docker-registry.

Every byte is a function of the shape, so digests are the same everywhere: a layer is a gzip member of stored
blocks around a tar with one file of random bytes. Layers are shared inside families of images.
"""
import hashlib, json, os, random, shutil, struct, zlib

MIB = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# images, layers of one image that its family shares, own layers, largest ordinary layer in MiB, (count, MiB) of huge ones
SHAPES = {
    "full": dict(images=20, families=5, shared=5, own=3, largest=64, huge=(4, 256)),
    "medium": dict(images=8, families=2, shared=4, own=3, largest=50, huge=(1, 256)),
    "small": dict(images=20, families=5, shared=3, own=2, largest=10, huge=(1, 64)),
    "tiny": dict(images=4, families=2, shared=2, own=1, largest=2, huge=(1, 4)),
}
STORED = 0xFFFF


def tar_header(name, size):
    """One ustar header (POSIX.1-1988)."""
    field = lambda value, width: f"{value:0{width - 1}o}\0".encode()
    head = bytearray(512)
    head[0:len(name)] = name.encode()
    head[100:108], head[108:116], head[116:124] = field(0o644, 8), field(0, 8), field(0, 8)
    head[124:136], head[136:148] = field(size, 12), field(1700000000, 12)
    head[148:156], head[156], head[257:265] = b" " * 8, 0x30, b"ustar\x0000"
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return bytes(head)


def pieces(name, size):
    """The tar of a layer, in pieces."""
    source = random.Random(f"layer {name}")
    yield tar_header(f"data/{name}", size)
    for at in range(0, size, MIB):
        yield source.randbytes(min(MIB, size - at))
    yield b"\0" * ((-size) % 512 + 1024)


def write_layer(folder, name, size):
    """Stores one layer and returns its descriptor and its diff id."""
    temp = os.path.join(folder, "layer.tmp")
    whole, plain, crc, length, rest = hashlib.sha256(), hashlib.sha256(), 0, 0, b""
    with open(temp, "wb") as out:
        def put(data):
            whole.update(data)
            out.write(data)

        def block(data, last):
            put(struct.pack("<BHH", last, len(data), len(data) ^ STORED))
            put(data)

        put(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
        for piece in pieces(name, size):
            plain.update(piece)
            crc, length = zlib.crc32(piece, crc), length + len(piece)
            waiting, at = memoryview(rest + piece), 0
            while len(waiting) - at > STORED:
                block(waiting[at:at + STORED], 0)
                at += STORED
            rest = bytes(waiting[at:])
        block(rest, 1)
        put(struct.pack("<II", crc, length & 0xFFFFFFFF))
        bytes_written = out.tell()
    place(folder, whole.hexdigest(), temp)
    return {"mediaType": LAYER, "digest": "sha256:" + whole.hexdigest(), "size": bytes_written}, "sha256:" + plain.hexdigest()


def place(folder, digest, temp):
    target = f"{folder}/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(temp, target)


def write_small(folder, value):
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    temp = os.path.join(folder, "small.tmp")
    with open(temp, "wb") as out:
        out.write(data)
    place(folder, digest, temp)
    return "sha256:" + digest, len(data)


def link(folder, repository, path, digest):
    target = f"{folder}/docker/registry/v2/repositories/{repository}/{path}/link"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w") as out:
        out.write(digest)


def make(folder, shape):
    """Makes the corpus if it is not there; returns its list of images and its sums."""
    done = os.path.join(folder, "corpus.json")
    wanted = dict(SHAPES[shape], version=2)
    if os.path.exists(done):
        with open(done) as file:
            known = json.load(file)
        if known["shape"] == json.loads(json.dumps(wanted)):
            return known
    shutil.rmtree(folder, ignore_errors=True)  # of another shape, or half made
    os.makedirs(folder)
    dice = random.Random("corpus")
    names = []
    for image in range(wanted["images"]):
        family = image % wanted["families"]
        names.append([f"base-{family}-{n}" for n in range(wanted["shared"])] + [f"own-{image}-{n}" for n in range(wanted["own"])])
    sizes = {}
    for name in sorted({name for image in names for name in image}):
        low = dice.random() < 0.5  # half of the layers are small
        sizes[name] = int(dice.uniform(MIB, wanted["largest"] * MIB / 4) if low else dice.uniform(MIB * wanted["largest"] / 4, MIB * wanted["largest"]))
    count, huge = wanted["huge"]
    for n in range(count):
        sizes[f"own-{n * 3}-0"] = huge * MIB
    layers = {name: write_layer(folder, name, size) for name, size in sizes.items()}
    images = []
    for number, own in enumerate(names):
        repository = f"corpus/app-{number:02}"
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": [f"/data/{own[-1]}"]}, "rootfs": {"type": "layers", "diff_ids": [layers[n][1] for n in own]}}
        digest, size = write_small(folder, config)
        described = [layers[n][0] for n in own]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, "digest": digest, "size": size}, "layers": described}
        top, top_size = write_small(folder, manifest)
        for blob in [digest] + [d["digest"] for d in described]:
            link(folder, repository, "_layers/" + blob.replace(":", "/"), blob)
        link(folder, repository, "_manifests/revisions/" + top.replace(":", "/"), top)
        link(folder, repository, "_manifests/tags/v1/current", top)
        link(folder, repository, "_manifests/tags/v1/index/" + top.replace(":", "/"), top)
        blobs = {top: top_size, digest: size, **{d["digest"]: d["size"] for d in described}}
        images.append({"repository": repository, "tag": "v1", "digest": top, "blobs": blobs})
    unique = {d: s for image in images for d, s in image["blobs"].items()}
    known = {"shape": wanted, "images": images, "unique": sum(unique.values()), "naive": sum(sum(i["blobs"].values()) for i in images)}
    with open(done + ".tmp", "w") as file:
        json.dump(known, file)
    os.rename(done + ".tmp", done)
    return known


def blobs(known):
    """Digest to (repository, size), each blob once; manifests are not served as blobs and are left out."""
    tops = {image["digest"] for image in known["images"]}
    return {d: (image["repository"], s) for image in known["images"] for d, s in image["blobs"].items() if d not in tops}
