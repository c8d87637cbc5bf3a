"""What a run costs: time, CPU, memory, bytes on the loopback, and how fast the disk is beside it."""
import ctypes, os, re, shutil, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

TICK = os.sysconf("SC_CLK_TCK")
CLONE_NEWNET = 0x40000000  # linux/sched.h
STOPPING = threading.Event()
LIVE = set()  # of everything this program started and has not seen end


def start(argv, **options):
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)
    LIVE.add(process)
    return process


def stop(process, grace=20):
    if process.returncode is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    LIVE.discard(process)


def stop_all():
    STOPPING.set()
    for process in list(LIVE):
        stop(process, grace=5)


def cpu_of(pid):
    """User and system seconds of a process that still runs."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def own_loopback():
    """Gives this process and its children a network of their own, if it may: then nobody else's bytes are counted."""
    libc = ctypes.CDLL(None)
    if os.geteuid() or libc.unshare(CLONE_NEWNET):
        return False
    return subprocess.run(["ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0 or sys.exit("ip link set lo up failed in a network namespace")


def lo_bytes():
    with open("/proc/net/dev") as file:
        return next(int(line.split(":")[1].split()[0]) for line in file if line.strip().startswith("lo:"))


def peak_kib(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


class Peak:
    """Samples the peak memory of processes that run at the same time. `wait4` would begin with this interpreter's."""

    def __init__(self):
        self.pids, self.kib, self.over = set(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        begun = time.monotonic()
        # The peak so far is what a sample tells, so few are enough, and each costs the contestants a little.
        while not self.over.wait(0.01 if time.monotonic() - begun < 1 else 0.05):
            self.kib = max(self.kib, sum(peak_kib(pid) for pid in list(self.pids)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def timed_sync():
    begun = time.monotonic()
    os.sync()
    return time.monotonic() - begun


def run(lines, at_once=1, log=subprocess.DEVNULL, env=None, beside=()):
    """Runs command lines, so many at once, beside processes that already run and work for them.

    A line may also be a list of lines, which run one after another. Returns wall and CPU seconds, the summed peak MiB
    of what ran together, and how many failed."""
    with Peak() as peak:
        peak.pids.update(process.pid for process in beside)

        def chain(line):
            return [one(argv) for argv in (line if isinstance(line[0], list) else [line])]

        def one(argv):
            if STOPPING.is_set():
                raise InterruptedError
            process = start(argv, stdout=log, stderr=log, env=env)
            peak.pids.add(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak.pids.discard(process.pid)
            LIVE.discard(process)
            return usage.ru_utime + usage.ru_stime, process.returncode

        before, begun = sum(cpu_of(p.pid) for p in beside), time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            running = [pool.submit(chain, line) for line in lines]
            try:
                results = [result for future in running for result in future.result()]
            except BaseException:  # told to stop: nothing new begins, and the pool must not wait for the rest
                stop_all()
                raise
        wall = time.monotonic() - begun
    cpu = sum(cpu for cpu, _ in results) + sum(cpu_of(p.pid) for p in beside) - before
    return dict(wall=wall, cpu=cpu, rss=peak.kib / 1024, failed=sum(1 for _, code in results if code))


def disk_rate(folder, read=False, mib=1024):
    """MB/s of the raw disk, past the page cache, in blocks of 4 MiB, into a file that has its blocks already.

    None where the file system knows no O_DIRECT."""
    path = os.path.join(folder, "disk.probe")
    write = ["dd", "if=/dev/zero", f"of={path}", "bs=4M", f"count={mib // 4}", "oflag=direct", "conv=fsync,notrunc"]
    try:
        if subprocess.run(write, capture_output=True).returncode:
            return None
        begun = time.monotonic()
        subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=4M", "iflag=direct"] if read else write, capture_output=True, check=True)
        return round((mib << 20) / 1e6 / (time.monotonic() - begun))
    finally:
        if os.path.exists(path):
            os.unlink(path)


def empty(folder):
    """An empty folder, with nothing left to write back from before. Mounts that a contestant left go first."""
    with open("/proc/mounts") as file:
        left = [line.split()[1] for line in file if line.split()[1].startswith(folder + "/")]
    for mount in sorted(left, reverse=True):
        subprocess.run(["umount", mount], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    os.sync()


def file_system(folder):
    with open("/proc/mounts") as file:
        mounts = [line.split()[:3] for line in file]
    fits = [m for m in mounts if f"{os.path.realpath(folder)}/".startswith(m[1].rstrip("/") + "/")]
    return max(fits, key=lambda m: len(m[1]))[2]


def machine(folder):
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = os.uname()
    release = re.match(r"[\d.]*", system.release)[0]
    return dict(cpu=model, cores=os.cpu_count(), memory_gib=round(memory), kernel=f"{system.sysname} {release} {system.machine}", file_system=file_system(folder))
