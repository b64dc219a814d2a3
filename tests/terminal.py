"""terminal.py COLUMNS LINES COMMAND ... - runs a command whose stderr is a terminal of COLUMNS
columns, "80,40" one that becomes narrower after half of the lines (0: a terminal that does not know
its width), and stops it after LINES lines of progress.  Prints each line behind the width that the
terminal had, and fails if one would have wrapped (with 0: at $COLUMNS or 80)."""
import fcntl, os, pty, re, select, signal, struct, subprocess, sys, termios, time

columns = os.environ.get("COLUMNS", "")
widths = [int(w) for w in sys.argv[1].split(",")]
most = int(sys.argv[2])
master, slave = pty.openpty()


def resize(columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


resize(widths[0])
child = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=slave)
os.close(slave)
seen, bad, deadline, behind = 0, 0, time.time() + 60, b""
try:
    while time.time() < deadline and child.poll() is None:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            behind += os.read(master, 4096)
        except OSError:
            break
        parts = behind.split(b"\r\033[K")
        if len(parts) < 2:
            continue
        behind = parts[-1]
        # what follows the last mark is one line, written at once; notices are no progress
        if not re.search(rb"\w", behind) or behind.startswith(b"calomu"):
            continue
        width = widths[min(len(widths) - 1, seen * len(widths) // most)]
        limit = width or (int(columns) if columns.isdigit() else 80)
        print(width, behind.decode())
        bad += len(behind) >= limit or b"\n" in behind
        behind, seen = b"\r\033[K", seen + 1
        if seen >= most:
            break
        resize(widths[min(len(widths) - 1, seen * len(widths) // most)])
finally:
    child.send_signal(signal.SIGTERM)
    os.close(master)
    child.wait()
sys.exit(1 if bad or seen < most else 0)
