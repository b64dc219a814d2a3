/* import_h5.c - the program calomu-import-h5: HDF5 files of muons to one data file (.cmu).

   Four layouts (what makes a layout known in brackets; import.md describes them for users):
     geant4    [event_offset]  event_offset (n+1), cell and energy per hit, e_true, x, y, charge;
               attributes energy_unit, shape, pitch_mm, origin_mm, field_T of the root group
     foldfile  [meta_data, fold_0 ...]  the authors' public files: fold_i/inputs (n,28) features,
               fold_i/targets (n,1) or (n,), fold_i/matrix_inputs (6,hits) with the rows energy,
               event, channel, z, x, y; JSON texts in meta_data
     perfile   [E]  the authors' files per ROOT file: E (n,1,nz,nx,ny) or (n,nz,nx,ny), y (n,),
               JSON text meta
     table     [hits, default_ntuples]  a row per hit and a row per muon, as records, as groups of
               columns, by pandas or by GEANT4's analysis manager; rows.c makes muons of them

   Two processes.  libhdf5 is known to crash on damaged files, so everything that touches it runs in
   a child (sections 2 to 6), which sends muons through a pipe; the parent (section 7) never calls
   it, checks what comes, writes the data file, and turns the end of a child that crashed or that
   computes without end into one line and an exit code.  The child may therefore give up anywhere:
   `stop` sends the reason and ends the process, and memory is returned by its end.

   Sections: 2 pipe, 3 LZF, 4 JSON, 5 HDF5, 6 layouts, 7 parent, 8 command line.  */
#include "calomu_tool.h"
#include "rows.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hdf5.h>

/* ---------------------------------------------------------------- 2 pipe */

typedef enum layout {
    LAYOUT_AUTO, LAYOUT_GEANT4, LAYOUT_FOLDFILE, LAYOUT_PERFILE, LAYOUT_TABLE
} layout;
static const char *const layout_names[] = { "auto", "geant4", "foldfile", "perfile", "table" };

enum { UNIT_GEV, UNIT_MEV, UNIT_UNSAID };

enum {
    RANK_MOST = 5,
    FOLDS_MOST = 100000,             /* the public files have 36 */
    TEXT_MOST = 1 << 20,             /* bytes of a JSON text */
    CPU_SECONDS = 120                /* of the child, without a muon or a block of numbers */
};
#define CHUNK_MOST ((hsize_t)64 << 20)      /* bytes of a chunk; h5py makes 1 MiB at most */
#define PACKED_MOST 2000                    /* deflate packs 1032:1 at most, LZF 88:1 */

/* What helps with files that only other programs can read, for messages; a test runs it. */
#define WAY_OUT "python3 tools/h5_plain.py IN OUT"
#define TRANSPOSED "; R and MATLAB store arrays with the order of the axes reversed: write t(x), " \
    "aperm(x)"
#define OTHER_FILE "no file is opened because a file says so; to make one of both: " WAY_OUT

typedef struct order {                 /* what the command line asks for */
    const char *path[4096];
    int paths;
    const char *out;
    int layout, unit;
    int fold;                        /* -1: all */
    uint64_t first, count;           /* count UINT64_MAX: all */
    int no_charge;
    tool_rules rules;
    const char *table[2];            /* where hits and truth are; NULL: where they usually are */
    const char *columns[2];          /* --hits-columns, --truth-columns; NULL: the usual names */
    tool_column column[2][5];        /* what to look for under them */
    calomu_geometry geometry;
    int geometry_given;
} order;

typedef enum packet_kind { PACKET_NOTE, PACKET_HEAD, PACKET_MUON, PACKET_FAIL, PACKET_END }
    packet_kind;

/* What goes through the pipe.  Behind NOTE and FAIL: n bytes of text; behind MUON: n hits, then the
   features if there are any.  Both ends are the same program. */
typedef struct packet {
    packet_kind kind;
    calomu_status status;            /* FAIL */
    uint64_t n;
    uint64_t total;                  /* HEAD: muons that will come, of all files */
    calomu_data_info info;           /* HEAD */
    float energy, x, y, charge;      /* MUON */
    int features;
    int file;                        /* MUON: which of the inputs */
} packet;

typedef struct reader {              /* the child */
    const order *job;
    const char *path;                /* of the file at hand */
    int file;                        /* its number */
    int delivering;                  /* 0: looking at all files first */
    FILE *pipe;
    calomu *c;
    tool_cell_row *rows;             /* of the muon at hand, and what they become */
    calomu_hit *hits;
    size_t room;
    char words[160], advice[300];    /* of libhdf5's last failure, and what to do about it */
} reader;

static void reader_send(reader *r, const packet *p, const void *bytes, size_t n)
{
    /* A parent that is gone has said why. */
    if (fwrite(p, sizeof *p, 1, r->pipe) != 1 || (n && fwrite(bytes, 1, n, r->pipe) != n))
        _exit(CALOMU_EIO);
}

static void reader_text(reader *r, packet_kind kind, calomu_status status, const char *format,
                        va_list args)
{
    char text[800];
    packet p;
    memset(&p, 0, sizeof p);
    (void)vsnprintf(text, sizeof text, format, args);
    p.kind = kind;
    p.status = status;
    p.n = strlen(text);
    reader_send(r, &p, text, (size_t)p.n);
}

static void note(reader *r, const char *format, ...) TOOL_PRINTF(2, 3);
static void note(reader *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    reader_text(r, PACKET_NOTE, CALOMU_OK, format, args);
    va_end(args);
}

static void stop(reader *r, calomu_status status, const char *format, ...)
    TOOL_PRINTF(3, 4)
#ifdef __GNUC__
    __attribute__((noreturn))
#endif
    ;
static void stop(reader *r, calomu_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    reader_text(r, PACKET_FAIL, status, format, args);
    va_end(args);
    (void)fflush(r->pipe);
    _exit((int)status);
}

static void *take(reader *r, size_t n, size_t size)
{
    void *memory = n < SIZE_MAX / 2 / size ? malloc(n * size + 1) : NULL;
    if (!memory) stop(r, CALOMU_EMEMORY, "%s: no memory for %zu x %zu bytes", r->path, n, size);
    return memory;
}

/* Starts the clock that ends a child which computes without getting on, as libhdf5 does on some
   circular files.  It counts computing only: a slow disk or a slow parent is no failure. */
static void alive(void)
{
    struct itimerval limit;
    memset(&limit, 0, sizeof limit);
    limit.it_value.tv_sec = CPU_SECONDS;
    (void)setitimer(ITIMER_PROF, &limit, NULL);
}

/* ---------------------------------------------------------------- 3 LZF */

enum { LZF_FILTER = 32000 };         /* as registered with the HDF Group by h5py */

/* Unpacks n bytes of LZF into out.  A control byte c below 32 is followed by c + 1 bytes to copy;
   any other is a back reference: length (c >> 5) + 2, with a further byte added where c >> 5 is 7,
   at a distance of 1 + (c & 31)*256 + next byte behind the end of the output, which it may overlap.
   Returns the bytes written, 0 for data that are no LZF or need more than room. */
static size_t lzf_unpack(const unsigned char *in, size_t n, unsigned char *out, size_t room)
{
    size_t i = 0, o = 0, length, back;
    while (i < n) {
        unsigned control = in[i++];
        if (control < 32) {
            length = control + 1;
            if (length > n - i || length > room - o) return 0;
            memcpy(out + o, in + i, length);
            i += length;
            o += length;
            continue;
        }
        length = control >> 5;
        if (length == 7) {
            if (i == n) return 0;
            length += in[i++];
        }
        length += 2;
        if (i == n) return 0;
        back = 1 + ((size_t)(control & 31) << 8) + in[i++];
        if (back > o || length > room - o) return 0;
        for (; length; length--, o++) out[o] = out[o - back];
    }
    return o;
}

/* The filter as libhdf5 calls it; 0 is failure.  value[2] is the size of an unpacked chunk, which
   set_open has compared with the dataset's: libhdf5 trusts a filter to fill the chunk. */
static size_t lzf_filter(unsigned flags, size_t n_values, const unsigned value[], size_t n,
                         size_t *size, void **buffer)
{
    void *out;
    if (!(flags & H5Z_FLAG_REVERSE) || n_values < 3 || n > *size) return 0;
    out = H5allocate_memory(value[2], 0);
    if (!out) return 0;
    if (value[2] == 0 || lzf_unpack(*buffer, n, out, value[2]) != value[2]) {
        (void)H5free_memory(out);
        return 0;
    }
    (void)H5free_memory(*buffer);
    *buffer = out;
    *size = value[2];
    return value[2];
}

static const H5Z_class2_t lzf_class = {
    H5Z_CLASS_T_VERS, LZF_FILTER, 0, 1, "lzf", NULL, NULL, lzf_filter
};

/* ---------------------------------------------------------------- 4 JSON */

/* Reads JSON where it stands; every function returns the first character behind what it read, or
   NULL if that is not there.  The texts end with a 0. */

static const char *json_space(const char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r') s++;
    return s;
}

static const char *json_mark(const char *s, char mark)
{
    s = json_space(s);
    return *s == mark ? s + 1 : NULL;
}

/* A string into text, cut to size.  Escapes stay as they are: no name that is looked for here has
   any. */
static const char *json_string(const char *s, char *text, size_t size)
{
    size_t n = 0;
    s = json_mark(s, '"');
    if (!s) return NULL;
    for (; *s != '"'; s++) {
        if ((unsigned char)*s < 32) return NULL;
        if (*s == '\\') {
            if (n + 1 < size) text[n++] = *s;
            s++;
            if ((unsigned char)*s < 32) return NULL;
        }
        if (n + 1 < size) text[n++] = *s;
    }
    text[n] = 0;
    return s + 1;
}

static const char *json_number(const char *s, double *x)
{
    return calomu_parse(json_space(s), x);
}

static const char *json_word(const char *s, const char *word)
{
    size_t n = strlen(word);
    s = json_space(s);
    return strncmp(s, word, n) == 0 ? s + n : NULL;
}

/* Passes over any value.  With `member` not NULL the value must be an object, and *found is set to
   the value of that member (NULL: it has none). */
static const char *json_skip(const char *s, int depth, const char *member, const char **found)
{
    char text[64], open, close;
    double x;
    const char *next;
    s = json_space(s);
    open = *s;
    if (member && open != '{') return NULL;
    if (open != '{' && open != '[') {
        if ((next = json_string(s, text, sizeof text)) || (next = json_number(s, &x))
            || (next = json_word(s, "true")) || (next = json_word(s, "false")))
            return next;
        return json_word(s, "null");
    }
    close = open == '{' ? '}' : ']';
    if (depth == 0) return NULL;
    if ((next = json_mark(++s, close))) return next;
    for (;;) {
        if (open == '{') {
            s = json_string(s, text, sizeof text);
            if (!s || !(s = json_mark(s, ':'))) return NULL;
            if (member && strcmp(text, member) == 0) *found = s;
        }
        s = json_skip(s, depth - 1, NULL, NULL);
        if (!s) return NULL;
        if ((next = json_mark(s, close))) return next;
        if (!(s = json_mark(s, ','))) return NULL;
    }
}

/* The whole text must be one value; see json_skip. */
static int json_find(const char *s, const char *member, const char **found)
{
    *found = NULL;
    s = json_skip(s, 32, member, found);
    return s && *json_space(s) == 0;
}

/* ---------------------------------------------------------------- 5 HDF5 */

enum { NAME_MOST = 200, DEEP_MOST = 4 };

typedef struct set {                 /* an open dataset, or a member of its records */
    char name[NAME_MOST];
    char member[64];                 /* ""; of records (compound): which of their numbers */
    hid_t id;
    int rank;
    hsize_t size[RANK_MOST];         /* extents */
    hsize_t chunk[RANK_MOST];        /* 1 where not chunked */
    int real;                        /* 1: numbers with a point */
    char type[16];                   /* "uint16", "float32" */
    double counts;                   /* whole numbers from 0 to this are exact in the type */
} set;

/* What an extent looks like, for messages: "(6, 589896)". */
static const char *shape_text(const set *d, char text[128])
{
    size_t at = 0;
    int i;
    text[0] = 0;
    for (i = 0; i < d->rank && at < 100; i++)
        at += (size_t)snprintf(text + at, 128 - at, "%s%llu", i ? ", " : "(",
                               (unsigned long long)d->size[i]);
    (void)snprintf(text + at, 128 - at, "%s", d->rank == 1 ? ",)" : d->rank ? ")" : "()");
    return text;
}

static double set_numbers(const set *d)
{
    double numbers = 1;
    int i;
    for (i = 0; i < d->rank; i++) numbers *= (double)d->size[i];
    return numbers;
}

static void stop_at(reader *r, const set *d, const char *format, ...) TOOL_PRINTF(3, 4)
#ifdef __GNUC__
    __attribute__((noreturn))
#endif
    ;
static void stop_at(reader *r, const set *d, const char *format, ...)
{
    char shape[128], text[500];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    stop(r, CALOMU_EFORMAT, "%s: /%s%s%s %s: %s", r->path, d->name, d->member[0] ? " " : "",
         d->member, shape_text(d, shape), text);
}

/* The library's words for its last failure: what it noted first, where it went wrong.  To be asked
   before any other call of the library, which forgets them. */
static herr_t words_add(unsigned n, const H5E_error2_t *error, void *user)
{
    reader *r = user;
    if (n == 0) (void)snprintf(r->words, sizeof r->words, "%s", error->desc ? error->desc : "");
    return 0;
}

static const char *words(reader *r)
{
    r->words[0] = 0;
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, words_add, r);
    return r->words;
}

/* errno in words of the library, "..., errno = 11, ..."; 0: not there. */
static int words_errno(const char *text)
{
    const char *at = strstr(text, "errno = ");
    return at ? atoi(at + 8) : 0;
}

/* What to do about them. */
static const char *advice(reader *r)
{
    unsigned major = 0, minor = 0, release = 0;
    (void)H5get_libversion(&major, &minor, &release);
    (void)snprintf(r->advice, sizeof r->advice, "the file is damaged or truncated");
    if (strstr(r->words, "version"))
        (void)snprintf(r->advice, sizeof r->advice, "the file is newer than this libhdf5 %u.%u.%u, "
                       "or damaged; if it is newer (h5py's libver='latest' with HDF5 2), write it "
                       "with libver=('earliest', 'v110'), or " WAY_OUT " with the Python that "
                       "wrote it", major, minor, release);
    else if (strstr(r->words, "h5clear") || strstr(r->words, "already open"))
        (void)snprintf(r->advice, sizeof r->advice, "a program is writing it, or was killed while "
                       "it did; if none has it open, take a copy, clear the mark there (h5clear "
                       "-s COPY) and read the copy");
    else if (strstr(r->words, "truncated"))
        (void)snprintf(r->advice, sizeof r->advice, "the file is truncated: its writer was killed, "
                       "or copying ended early");
    return r->advice;
}

/* Stops for what the library could not do, just now, with `thing`.  It is damage, or a newer file:
   where reading failed or memory lacks, on_failure has stopped already. */
static void stop_library(reader *r, const char *thing, const char *what)
#ifdef __GNUC__
    __attribute__((noreturn))
#endif
    ;
static void stop_library(reader *r, const char *thing, const char *what)
{
    const char *help;
    (void)words(r);
    help = advice(r);
    stop(r, CALOMU_EFORMAT, "%s: %s%s%s (libhdf5: %s): %s", r->path,
         *thing && *thing != '/' ? "/" : "", thing, what, r->words, help);
}

/* A file is read by itself: no link leads into another file, whoever wrote it. */
static herr_t no_other_file(const char *parent, const char *group, const char *file,
                            const char *object, unsigned *flags, hid_t list, void *user)
{
    (void)parent; (void)group; (void)file; (void)object; (void)flags; (void)list; (void)user;
    return -1;
}

/* Properties of an access, of a link or a dataset, that keep it inside the file. */
static hid_t access_list(reader *r, hid_t kind)
{
    hid_t list = H5Pcreate(kind);
    if (list < 0 || H5Pset_elink_cb(list, no_other_file, NULL) < 0)
        stop(r, CALOMU_EMEMORY, "%s: HDF5 library: no memory", r->path);
    return list;
}

/* Stops for a link that leads nowhere, and says where it would have led. */
static void stop_link(reader *r, hid_t file, const char *name, const H5L_info_t *link)
{
    char value[512];
    const char *other = NULL, *object = NULL;
    if (link->type == H5L_TYPE_HARD)
        stop(r, CALOMU_EFORMAT, "%s: /%s cannot be followed: the file is damaged", r->path, name);
    memset(value, 0, sizeof value);
    if (link->u.val_size >= sizeof value
        || H5Lget_val(file, name, value, sizeof value - 1, H5P_DEFAULT) < 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s is a link that cannot be read", r->path, name);
    if (link->type == H5L_TYPE_SOFT)
        stop(r, CALOMU_EFORMAT, "%s: /%s is a link to '%.150s', which leads nowhere in this file",
             r->path, name, value);
    if (link->type == H5L_TYPE_EXTERNAL
        && H5Lunpack_elink_val(value, link->u.val_size, NULL, &other, &object) >= 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s is a link to '%.100s' in another file, '%.100s'; "
             OTHER_FILE, r->path, name, object, other);
    stop(r, CALOMU_EFORMAT, "%s: /%s is a link of a kind that is not known here", r->path, name);
}

/* 1 if the file has this object, 0 if it has no link of the name.  Stops where the link is there
   but leads nowhere, or into another file: what is there is never taken as absent. */
static int has(reader *r, hid_t file, const char *name)
{
    hid_t list = access_list(r, H5P_LINK_ACCESS);
    char part[NAME_MOST];
    H5L_info_t link;
    size_t n;
    for (n = 0; name[n]; n += name[n] == '/') {
        n += strcspn(name + n, "/");
        if (n >= sizeof part) stop(r, CALOMU_EUSAGE, "%s: a name too long: %s", r->path, name);
        memcpy(part, name, n);
        part[n] = 0;
        if (n == 0) continue;
        if (H5Lexists(file, part, list) <= 0) {
            (void)H5Pclose(list);
            return 0;
        }
        if (H5Lget_info(file, part, &link, list) < 0)
            stop(r, CALOMU_EFORMAT, "%s: /%s cannot be followed: damaged", r->path, part);
        if (H5Oexists_by_name(file, part, list) <= 0) stop_link(r, file, part, &link);
    }
    (void)H5Pclose(list);
    return 1;
}

/* The name under which people know a filter that does not come with libhdf5. */
static const char *filter_name(H5Z_filter_t filter, const char *said)
{
    static const struct { int number; const char *name; } known[] = {
        { 1, "deflate" }, { 4, "szip" }, { 305, "LZO" }, { 307, "bzip2" }, { 32001, "Blosc" },
        { 32004, "LZ4" }, { 32008, "bitshuffle" }, { 32013, "ZFP" }, { 32015, "Zstandard" },
        { 32017, "SZ" }, { 32026, "Blosc2" }
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].number == filter) return known[i].name;
    return said[0] ? said : "unknown";
}

static void check_filters(reader *r, const set *d, hid_t plist, hsize_t chunk_bytes)
{
    unsigned flags, value[8], config;
    char name[32];
    size_t n;
    int i, filters = H5Pget_nfilters(plist);
    H5Z_filter_t filter;
    for (i = 0; i < filters; i++) {
        n = sizeof value / sizeof *value;
        memset(value, 0, sizeof value);
        memset(name, 0, sizeof name);
        filter = H5Pget_filter2(plist, (unsigned)i, &flags, &n, value, sizeof name - 1, name,
                                &config);
        if (filter < 0) stop_at(r, d, "its filters cannot be read: the file is damaged");
        if (H5Zfilter_avail(filter) <= 0)
            stop_at(r, d, "packed with filter %d (%s), which is not in this libhdf5, and none is "
                    "loaded because a file says so; repack it where the filter is: h5repack -f "
                    "GZIP=6 IN OUT, or (hdf5plugin) " WAY_OUT, (int)filter,
                    filter_name(filter, name));
        if (filter == LZF_FILTER && (n < 3 || value[2] != chunk_bytes))
            stop_at(r, d, "LZF filter and chunk differ in size: the file is damaged");
    }
}

/* A dataset in chunks that were not all written holds fill values in their place, which nothing
   tells from numbers: its writer was killed, or made it longer than what it wrote. */
static void check_chunks(reader *r, const set *d)
{
#if H5_VERSION_GE(1, 10, 5)
    hid_t space = H5Dget_space(d->id);
    hsize_t written = 0;
    double wanted = 1;
    int i;
    for (i = 0; i < d->rank; i++) wanted *= ceil((double)d->size[i] / (double)d->chunk[i]);
    if (space < 0 || H5Dget_num_chunks(d->id, space, &written) < 0)
        stop_at(r, d, "its chunks cannot be listed: the file is damaged");
    (void)H5Sclose(space);
    if ((double)written < wanted)
        stop_at(r, d, "%.0f of its %.0f chunks were never written: was its writer killed?",
                wanted - (double)written, wanted);
#else
    (void)r; (void)d;
#endif
}

static void check_storage(reader *r, hid_t file, set *d, size_t size, int depth);

/* Opens a dataset and looks at its extent and type, not at how it is stored. */
static size_t set_look(reader *r, hid_t file, const char *name, const char *member, set *d);

/* A virtual dataset shows numbers of others: they must be of this file, all the way down.  This is
   looked at before H5Dget_space, which opens the files of a mapping without end (A23). */
static void check_sources(reader *r, hid_t file, hid_t id, const char *shown, int depth)
{
    hid_t plist = H5Dget_create_plist(id), source;
    char name[NAME_MOST], from[256];
    size_t i, n = 0;
    if (plist < 0) stop(r, CALOMU_EFORMAT, "%s: /%s is damaged", r->path, shown);
    if (H5Pget_layout(plist) == H5D_VIRTUAL && (depth >= DEEP_MOST
                                                || H5Pget_virtual_count(plist, &n) < 0))
        stop(r, CALOMU_EFORMAT, "%s: /%s is virtual, and its sources cannot be followed", r->path,
             shown);
    for (i = 0; i < n; i++) {
        if (H5Pget_virtual_filename(plist, i, from, sizeof from) < 0
            || H5Pget_virtual_dsetname(plist, i, name, sizeof name) < 0)
            stop(r, CALOMU_EFORMAT, "%s: /%s is virtual, and its sources cannot be read", r->path,
                 shown);
        if (strcmp(from, ".") != 0)
            stop(r, CALOMU_EFORMAT, "%s: /%s is virtual: its numbers are in another file, "
                 "'%.100s'; " OTHER_FILE, r->path, shown, from);
        source = strlen(name) < sizeof name - 1 && has(r, file, name)
                     ? H5Dopen2(file, name, H5P_DEFAULT) : -1;
        if (source < 0)
            stop(r, CALOMU_EFORMAT, "%s: /%s is virtual, and its source '%.100s' is not there",
                 r->path, shown, name);
        check_sources(r, file, source, name, depth + 1);
        (void)H5Dclose(source);
    }
    (void)H5Pclose(plist);
}

/* Each number of a virtual dataset must have a source: for those without, and for sources that are
   too short, the library would make up fill values. */
static void check_virtual(reader *r, hid_t file, const set *d, hid_t plist, int depth)
{
    char name[NAME_MOST];
    hsize_t start[RANK_MOST], end[RANK_MOST];
    size_t i, n = 0, size;
    double numbers = set_numbers(d), shown = 0;
    hssize_t points;
    hid_t space, source;
    set s;
    int k, fits;
    (void)H5Pget_virtual_count(plist, &n);
    for (i = 0; i < n; i++, (void)H5Sclose(space), (void)H5Sclose(source), (void)H5Dclose(s.id)) {
        (void)H5Pget_virtual_dsetname(plist, i, name, sizeof name);
        size = set_look(r, file, name, NULL, &s);
        check_storage(r, file, &s, size, depth + 1);
        space = H5Pget_virtual_vspace(plist, i);
        source = H5Pget_virtual_srcspace(plist, i);
        points = H5Sget_select_npoints(space);
        fits = points >= 0;
        if (H5Sget_select_type(source) == H5S_SEL_ALL) {
            fits = fits && (double)points == set_numbers(&s);
        } else {
            fits = fits && H5Sget_simple_extent_ndims(source) == s.rank
                   && H5Sget_select_npoints(source) == points
                   && H5Sget_select_bounds(source, start, end) >= 0;
            for (k = 0; fits && k < s.rank; k++) fits = end[k] < s.size[k];
        }
        if (!fits)
            stop_at(r, d, "virtual: its source '%.100s' does not hold all that is shown, or has no "
                    "end; if the numbers are right: " WAY_OUT, name);
        shown += (double)points;
    }
    if (shown != numbers)
        stop_at(r, d, "virtual: %.0f of its %.0f numbers have no source", numbers - shown, numbers);
}

/* Layout on disk: no chunk too large for memory, no other file, and no more numbers than the bytes
   stored can hold, so that a false extent is found now and not after hours of zeros. */
static void check_storage(reader *r, hid_t file, set *d, size_t size, int depth)
{
    hid_t plist = H5Dget_create_plist(d->id);
    H5D_layout_t kind = plist < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(plist);
    hsize_t stored = kind == H5D_VIRTUAL ? 0 : H5Dget_storage_size(d->id), chunk_bytes = size;
    double most = (double)stored;
    char other[128];
    off_t at;
    hsize_t bytes;
    int i;
    for (i = 0; i < RANK_MOST; i++) d->chunk[i] = 1;
    if (kind == H5D_VIRTUAL) check_virtual(r, file, d, plist, depth);
    else if (kind != H5D_COMPACT && kind != H5D_CONTIGUOUS && kind != H5D_CHUNKED)
        stop_at(r, d, "stored in a way that is not known here, or damaged");
    if (kind == H5D_CONTIGUOUS && H5Pget_external_count(plist) != 0) {
        memset(other, 0, sizeof other);
        (void)H5Pget_external(plist, 0, sizeof other - 1, other, &at, &bytes);
        stop_at(r, d, "its numbers are in another file, '%s'; " OTHER_FILE, other);
    }
    if (kind == H5D_CHUNKED) {
        if (H5Pget_chunk(plist, RANK_MOST, d->chunk) != d->rank)
            stop_at(r, d, "its chunks cannot be read: the file is damaged");
        for (i = 0; i < d->rank; i++) {
            if (d->chunk[i] == 0 || d->chunk[i] > CHUNK_MOST / chunk_bytes)
                stop_at(r, d, "chunks of more than 64 MiB; repack it with smaller ones (h5repack)");
            chunk_bytes *= d->chunk[i];
        }
        check_filters(r, d, plist, chunk_bytes);
        most *= PACKED_MOST;
    }
    if (kind != H5D_VIRTUAL && set_numbers(d) * (double)size > most)
        stop_at(r, d, "more numbers than the file holds bytes for: damaged or never filled");
    if (kind == H5D_CHUNKED) check_chunks(r, d);
    (void)H5Pclose(plist);
}

/* What the type of numbers can hold; 0: it is no type of numbers. */
static int set_type(set *d, hid_t type)
{
    size_t sign, exponent, exponent_bits, mantissa, bits = 0;
    unsigned width = (unsigned)(8 * H5Tget_size(type));
    H5T_class_t kind = H5Tget_class(type);
    if (kind != H5T_INTEGER && kind != H5T_FLOAT) return 0;
    d->real = kind == H5T_FLOAT;
    if (d->real && H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &bits) < 0)
        return 0;
    if (!d->real) bits = H5Tget_precision(type) - (H5Tget_sign(type) == H5T_SGN_2 ? 1 : 0);
    /* A float has one bit more than it stores, and counts up to all of its bits and one. */
    d->counts = d->real ? ldexp(1, (int)bits + 1) : ldexp(1, (int)bits) - 1;
    (void)snprintf(d->type, sizeof d->type, "%s%u",
                   d->real ? "float" : H5Tget_sign(type) == H5T_SGN_2 ? "int" : "uint", width);
    return 1;
}

static size_t set_look(reader *r, hid_t file, const char *name, const char *member, set *d)
{
    hid_t list = access_list(r, H5P_DATASET_ACCESS), type, space, part = -1;
    int which;
    size_t size;
    memset(d, 0, sizeof *d);
    (void)snprintf(d->name, sizeof d->name, "%s", name + (*name == '/'));
    if (member) (void)snprintf(d->member, sizeof d->member, "%s", member);
    if (!has(r, file, name)) stop(r, CALOMU_EFORMAT, "%s: no dataset /%s in it", r->path, d->name);
    if (H5Pset_chunk_cache(list, 12421, (size_t)CHUNK_MOST, 1.0) < 0)
        stop(r, CALOMU_EMEMORY, "%s: HDF5 library: no memory", r->path);
    d->id = H5Dopen2(file, name, list);
    if (d->id < 0) stop_library(r, name, " is no dataset, or cannot be opened");
    type = H5Dget_type(d->id);
    check_sources(r, file, d->id, d->name, 0);
    space = H5Dget_space(d->id);
    if (member && type >= 0 && (which = H5Tget_member_index(type, member)) >= 0)
        part = H5Tget_member_type(type, (unsigned)which);
    if (type < 0 || !set_type(d, member ? part : type))
        stop(r, CALOMU_EFORMAT, "%s: /%s%s%s holds no numbers", r->path, d->name,
             member ? " " : "", d->member);
    d->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (d->rank < 1 || d->rank > RANK_MOST || H5Sget_simple_extent_dims(space, d->size, NULL) < 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s has %d dimensions, or is damaged", r->path, d->name,
             d->rank);
    size = H5Tget_size(type);
    if (part >= 0) (void)H5Tclose(part);
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    (void)H5Pclose(list);
    return size;
}

/* Opens a dataset of numbers. */
static void set_open(reader *r, hid_t file, const char *name, set *d)
{
    size_t size = set_look(r, file, name, NULL, d);
    check_storage(r, file, d, size, 0);
}

/* Refuses a type that cannot hold numbers up to `most`: larger ones have wrapped or were rounded
   when they were written, and nothing in the file tells. */
static void set_counts(reader *r, const set *d, double most, const char *what)
{
    if (most > d->counts)
        stop_at(r, d, "its type %s cannot count the %s up to %.0f, which would wrap or be rounded; "
                "write it as %s", d->type, what, most, most < 4294967296.0 ? "uint32" : "int64");
}

/* A window that slides along one axis of a dataset: element i are the `per` values at position i of
   that axis (of all positions on the others, or of one row). */
typedef struct view {
    reader *r;
    set d;
    hid_t memory_type;
    int axis;
    hsize_t start[RANK_MOST], count[RANK_MOST];
    size_t per, size;                /* values of an element; bytes of a value */
    uint64_t length, first, here, window;
    unsigned char *bytes;
} view;

/* row -1: all of the other axes; else that position on the other axis of a 2-dimensional set. */
static void view_open(reader *r, const set *d, int axis, int row, hid_t memory_type, view *v)
{
    size_t most;
    int i;
    memset(v, 0, sizeof *v);
    v->r = r;
    v->d = *d;
    v->axis = axis;
    v->memory_type = memory_type;
    v->size = H5Tget_size(memory_type);
    if (d->member[0]) {
        v->memory_type = H5Tcreate(H5T_COMPOUND, v->size);
        if (v->memory_type < 0 || H5Tinsert(v->memory_type, d->member, 0, memory_type) < 0)
            stop(r, CALOMU_EMEMORY, "%s: HDF5 library: no memory", r->path);
    }
    v->length = d->size[axis];
    v->per = 1;
    for (i = 0; i < d->rank; i++) {
        if (i == axis) continue;
        v->start[i] = row < 0 ? 0 : (hsize_t)row;
        v->count[i] = row < 0 ? d->size[i] : 1;
        v->per *= (size_t)v->count[i];       /* at most 2^24, as the callers have checked */
    }
    if (v->per == 0) v->per = 1;
    /* As many elements as a chunk has, so that each is unpacked once, within 32 MiB. */
    most = ((size_t)32 << 20) / (v->per * v->size);
    v->window = 65536 / v->per;
    if (v->window < d->chunk[axis]) v->window = d->chunk[axis];
    if (v->window > most) v->window = most;
    if (v->window > v->length) v->window = v->length;
    if (v->window < 1) v->window = 1;
    v->bytes = take(r, (size_t)v->window * v->per, v->size);
}

/* The same for whole numbers, which are read by whole_at or number_at, whatever their type. */
static void view_numbers(reader *r, const set *d, int axis, int row, view *v)
{
    view_open(r, d, axis, row, d->real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, v);
}

static void view_close(view *v)
{
    if (v->d.member[0]) (void)H5Tclose(v->memory_type);
    free(v->bytes);
    v->bytes = NULL;
}

static void view_load(view *v, uint64_t i)
{
    hsize_t n;
    hid_t file = H5Dget_space(v->d.id), memory;
    char shape[128], what[200];
    if (i >= v->length) stop_at(v->r, &v->d, "too short: the file is inconsistent");
    v->first = i - i % v->window;
    v->here = v->length - v->first < v->window ? v->length - v->first : v->window;
    v->start[v->axis] = v->first;
    v->count[v->axis] = v->here;
    n = v->here * v->per;
    memory = H5Screate_simple(1, &n, NULL);
    alive();
    if (file < 0 || memory < 0
        || H5Sselect_hyperslab(file, H5S_SELECT_SET, v->start, NULL, v->count, NULL) < 0
        || H5Dread(v->d.id, v->memory_type, memory, file, H5P_DEFAULT, v->bytes) < 0) {
        (void)snprintf(what, sizeof what, " %s: cannot be read from %llu on",
                       shape_text(&v->d, shape), (unsigned long long)v->first);
        stop_library(v->r, v->d.name, what);
    }
    (void)H5Sclose(file);
    (void)H5Sclose(memory);
}

static const void *view_at(view *v, uint64_t i)
{
    if (i < v->first || i - v->first >= v->here) view_load(v, i);
    return v->bytes + (size_t)(i - v->first) * v->per * v->size;
}

static float float_at(view *v, uint64_t i) { return *(const float *)view_at(v, i); }

/* Of a view of view_numbers; R marks a missing whole number by the least one of 32 bits. */
static double number_at(view *v, uint64_t i)
{
    const void *x = view_at(v, i);
    double value = v->d.real ? *(const double *)x : (double)*(const int64_t *)x;
    if (!v->d.real && value == -2147483648.0 && strcmp(v->d.type, "int32") == 0)
        return (double)calomu_absent();
    return value;
}

static int64_t whole_at(view *v, uint64_t i)
{
    double x;
    if (!v->d.real) return *(const int64_t *)view_at(v, i);
    x = *(const double *)view_at(v, i);
    if (!(fabs(x) <= 9007199254740992.0) || x != floor(x))
        stop_at(v->r, &v->d, "%g at position %llu is no whole number", x, (unsigned long long)i);
    return (int64_t)x;
}

/* A text of any of HDF5's kinds, from a dataset or attribute already open; NULL if it is none. */
static char *text_read(reader *r, hid_t id, int attribute)
{
    hid_t type = attribute ? H5Aget_type(id) : H5Dget_type(id);
    hid_t space = attribute ? H5Aget_space(id) : H5Dget_space(id);
    hid_t memory;
    size_t size;
    char *text = NULL, *own;
    int variable;
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_STRING
        || H5Sget_simple_extent_npoints(space) != 1)
        return NULL;
    variable = H5Tis_variable_str(type) > 0;
    size = variable ? 0 : H5Tget_size(type);
    memory = H5Tcopy(H5T_C_S1);
    if (size > TEXT_MOST || memory < 0 || H5Tset_cset(memory, H5Tget_cset(type)) < 0
        || H5Tset_size(memory, variable ? H5T_VARIABLE : size + 1) < 0)
        return NULL;
    own = take(r, size + 1, 1);
    memset(own, 0, size + 1);
    alive();
    if ((attribute ? H5Aread(id, memory, variable ? (void *)&text : own)
                   : H5Dread(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                             variable ? (void *)&text : own)) < 0)
        return NULL;
    if (!variable) return own;
    free(own);
    return text && strlen(text) <= TEXT_MOST ? text : NULL;
}

/* Opens a dataset that is read as a whole: a text, names, one number.  In this file. */
static hid_t plain_open(reader *r, hid_t file, const char *name)
{
    hid_t id = H5Dopen2(file, name, H5P_DEFAULT), plist;
    if (id < 0) stop_library(r, name, " is no text, or cannot be opened");
    plist = H5Dget_create_plist(id);
    if (plist < 0 || H5Pget_layout(plist) == H5D_VIRTUAL || H5Pget_external_count(plist) > 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s is stored elsewhere; " OTHER_FILE, r->path, name);
    (void)H5Pclose(plist);
    return id;
}

static char *text_of_set(reader *r, hid_t file, const char *name)
{
    hid_t id;
    char *text = NULL;
    if (!has(r, file, name)) stop(r, CALOMU_EFORMAT, "%s: no text /%s in it", r->path, name);
    id = plain_open(r, file, name);
    text = text_read(r, id, 0);
    if (!text) stop(r, CALOMU_EFORMAT, "%s: /%s is no text, or damaged", r->path, name);
    (void)H5Dclose(id);
    return text;
}

/* n numbers of an attribute of the root group; 0 if there is no such attribute. */
static int attribute_numbers(reader *r, hid_t file, const char *name, int n, double *x)
{
    hid_t id, type, space;
    H5T_class_t kind;
    int i;
    if (H5Aexists(file, name) <= 0) return 0;
    id = H5Aopen(file, name, H5P_DEFAULT);
    type = id < 0 ? -1 : H5Aget_type(id);
    space = id < 0 ? -1 : H5Aget_space(id);
    kind = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    if (space < 0 || (kind != H5T_INTEGER && kind != H5T_FLOAT)
        || H5Sget_simple_extent_npoints(space) != n || H5Aread(id, H5T_NATIVE_DOUBLE, x) < 0)
        stop(r, CALOMU_EFORMAT, "%s: attribute %s is not %d number%s, or damaged", r->path, name, n,
             n > 1 ? "s" : "");
    for (i = 0; i < n; i++)
        if (!isfinite(x[i]))
            stop(r, CALOMU_EFORMAT, "%s: attribute %s is not finite", r->path, name);
    (void)H5Aclose(id);
    return 1;
}

/* ---------------------------------------------------------------- 6 layouts */

typedef struct fold {
    char name[32];                   /* as in the file: "fold_07" */
    uint32_t number;
    uint64_t muons;
} fold;

typedef struct source {              /* a file and what it says of itself */
    hid_t file;
    layout layout;
    int mev;                         /* 1: hits in MeV */
    int unsaid;                      /* 1: GeV because the layout is the authors' */
    uint64_t muons;
    calomu_data_info info;
    fold *folds;
    int n_folds;
    int column[CALOMU_FEATURES];     /* of feature i in `inputs` */
    tool_rows rows;                  /* of the layout table */
    char rows_name[2][NAME_MOST + 4];
    struct stat about;               /* when it was opened */
} source;

/* Room for the rows of a muon of n hits. */
static tool_cell_row *row_room(reader *r, size_t n)
{
    tool_cell_row *bigger;
    if (n <= r->room) return r->rows;
    n += n / 2;
    bigger = take(r, n, sizeof *bigger);
    if (r->room) memcpy(bigger, r->rows, r->room * sizeof *bigger);
    free(r->rows);
    free(r->hits);
    r->rows = bigger;
    r->hits = take(r, n, sizeof *r->hits);
    r->room = n;
    return bigger;
}

/* Energy of a hit in GeV. */
static double hit_energy(reader *r, const source *s, const view *v, float energy, uint64_t muon)
{
    if (tool_rules_refuse(&r->job->rules, energy))
        stop_at(r, &v->d, "muon %llu has a hit of energy %g; --negative zero makes it 0",
                (unsigned long long)muon, (double)energy);
    if (!isfinite(energy))
        stop_at(r, &v->d, "muon %llu has a hit of energy %g", (unsigned long long)muon,
                (double)energy);
    return s->mev ? (double)(float)((double)energy * 1e-3) : (double)energy;
}

/* The n rows of a muon to hits; returns how many. */
static size_t settle(reader *r, const view *v, size_t n, uint64_t muon)
{
    tool_cells_fault why = TOOL_CELLS_TWICE;
    size_t hits = 0, bad = 0;
    if (tool_cells_settle(&r->job->rules, r->rows, n, r->hits, &hits, &bad, &why) == CALOMU_OK)
        return hits;
    if (why == TOOL_CELLS_TWICE)
        stop_at(r, &v->d, "muon %llu has cell %lu twice: hits %zu and %zu; --sum adds the hits of "
                "a cell", (unsigned long long)muon, (unsigned long)r->rows[bad].cell,
                r->rows[bad - 1].row, r->rows[bad].row);
    stop_at(r, &v->d, "muon %llu has an energy %s in cell %lu%s", (unsigned long long)muon,
            why == TOOL_CELLS_NEGATIVE ? "below 0" : "that is too large",
            (unsigned long)r->rows[bad].cell,
            why == TOOL_CELLS_NEGATIVE ? "; --negative zero makes it 0" : "");
}

static void send_muon(reader *r, packet *p, const calomu_hit *hit, size_t hits,
                      const float *features)
{
    p->kind = PACKET_MUON;
    p->n = hits;
    p->features = features != NULL;
    p->file = r->file;
    reader_send(r, p, hit, hits * sizeof *hit);
    if (features && fwrite(features, sizeof *features, CALOMU_FEATURES, r->pipe) != CALOMU_FEATURES)
        _exit(CALOMU_EIO);
    alive();
}

static void too_many(reader *r, const view *v, uint64_t muon)
{
    stop_at(r, &v->d, "muon %llu has more hits than there are cells", (unsigned long long)muon);
}

static uint64_t cells(const source *s)
{
    return (uint64_t)s->info.geometry.nz * (uint64_t)s->info.geometry.nx
           * (uint64_t)s->info.geometry.ny;
}

/* The axis of a set that holds one number per row; -1: it is of another shape.  R and MATLAB write
   a column as a row. */
static int column_axis(const set *d)
{
    int axis = d->rank == 2 && d->size[0] == 1;
    return d->rank == 1 || (d->rank == 2 && d->size[!axis] == 1) ? axis : -1;
}

/* The number of one value per muon, or absent: float32, finite. */
static float truth_at(view *v, int there, uint64_t i)
{
    float x;
    if (!there) return CALOMU_ABSENT;
    x = float_at(v, i);
    if (!isfinite(x))
        stop_at(v->r, &v->d, "muon %llu has the value %g", (unsigned long long)i, (double)x);
    return x;
}

/* ---- energy unit and geometry */

/* The text of an attribute; NULL if there is none of the name. */
static const char *attribute_text(reader *r, hid_t object, const char *name)
{
    const char *text = NULL;
    hid_t id;
    if (H5Aexists(object, name) <= 0) return NULL;
    id = H5Aopen(object, name, H5P_DEFAULT);
    if (id >= 0) text = text_read(r, id, 1);
    if (!text) stop(r, CALOMU_EFORMAT, "%s: attribute %s is no text", r->path, name);
    (void)H5Aclose(id);
    return text;
}

/* The unit of the hits: energy_unit of the root group, else unit or units of what holds them. */
static const char *unit_of(reader *r, hid_t file, hid_t energy)
{
    const char *unit = attribute_text(r, file, "energy_unit"), *other;
    other = attribute_text(r, energy, "units");
    if (!other) other = attribute_text(r, energy, "unit");
    if (unit && other && strcmp(unit, other) != 0)
        stop(r, CALOMU_EFORMAT, "%s: attribute energy_unit is '%.40s', that of the energies "
             "'%.40s'", r->path, unit, other);
    return unit ? unit : other;
}

static void settle_unit(reader *r, source *s, const char *said)
{
    int unit = UNIT_UNSAID;
    if (said && strcmp(said, "GeV") == 0) unit = UNIT_GEV;
    else if (said && strcmp(said, "MeV") == 0) unit = UNIT_MEV;
    else if (said)
        stop(r, CALOMU_EFORMAT, "%s: energy unit '%.40s' is neither GeV nor MeV", r->path, said);
    if (r->job->unit != UNIT_UNSAID && unit != UNIT_UNSAID && unit != r->job->unit)
        stop(r, CALOMU_EUSAGE, "%s: says that its energies are %s; leave out --energy-unit",
             r->path, said);
    if (unit == UNIT_UNSAID) unit = r->job->unit;
    if (unit == UNIT_UNSAID)
        stop(r, CALOMU_EFORMAT, "%s: does not say its energy unit; give --energy-unit GeV or MeV",
             r->path);
    s->mev = unit == UNIT_MEV;
}

static void check_geometry(reader *r, const calomu_geometry *g)
{
    if (calomu_geometry_check(r->c, g) != CALOMU_OK)
        stop(r, CALOMU_EFORMAT, "%s: %s", r->path, calomu_message(r->c));
}

static int32_t cells_along(reader *r, double n)
{
    if (!(n >= 1 && n <= 1 << 24) || n != floor(n))
        stop(r, CALOMU_EFORMAT, "%s: a calorimeter of %g cells along an axis", r->path, n);
    return (int32_t)n;
}

/* For layouts that give the numbers of cells only. */
static void settle_grid(reader *r, source *s, const double n[3])
{
    calomu_geometry *g = &s->info.geometry;
    int32_t nz = cells_along(r, n[0]), nx = cells_along(r, n[1]), ny = cells_along(r, n[2]);
    *g = r->job->geometry_given ? r->job->geometry : calomu_geometry_default();
    if (g->nz != nz || g->nx != nx || g->ny != ny)
        stop(r, r->job->geometry_given ? CALOMU_EUSAGE : CALOMU_EFORMAT,
             "%s: has %d x %d x %d cells, %s", r->path, nz, nx, ny,
             r->job->geometry_given ? "unlike --geometry" : "and no sizes: give --geometry");
    check_geometry(r, g);
}

/* Attributes of the geant4 layout; --geometry stands in for those that lack. */
static void settle_geometry(reader *r, source *s)
{
    calomu_geometry *g = &s->info.geometry;
    const calomu_geometry *given = &r->job->geometry;
    double n[3], pitch[3], origin[3], field;
    int have[4], i;
    have[0] = attribute_numbers(r, s->file, "shape", 3, n);
    have[1] = attribute_numbers(r, s->file, "pitch_mm", 3, pitch);
    have[2] = attribute_numbers(r, s->file, "origin_mm", 3, origin);
    have[3] = attribute_numbers(r, s->file, "field_T", 1, &field);
    if (!r->job->geometry_given && !(have[0] && have[1] && have[2] && have[3]))
        stop(r, CALOMU_EFORMAT, "%s: no attribute %s; give --geometry", r->path,
             !have[0] ? "shape" : !have[1] ? "pitch_mm" : !have[2] ? "origin_mm" : "field_T");
    *g = *given;
    if (have[0]) {
        g->nz = cells_along(r, n[0]);
        g->nx = cells_along(r, n[1]);
        g->ny = cells_along(r, n[2]);
    }
    for (i = 0; i < 3; i++) {
        if (have[1]) g->pitch[i] = pitch[i];
        if (have[2]) g->origin[i] = origin[i];
    }
    if (have[3]) g->field = field;
    check_geometry(r, g);
    if (!r->job->geometry_given) return;
    if (calomu_geometry_compare(r->c, g, given) != CALOMU_OK)
        stop(r, CALOMU_EUSAGE, "%s: its geometry is not that of --geometry (%s); leave that out",
             r->path, calomu_message(r->c));
    *g = *given;                     /* equal, but for what went through a float32 */
}

/* ---- geant4 */

static void geant4_survey(reader *r, source *s)
{
    set offset, cell, energy;
    view v;
    char shape[128];
    set_open(r, s->file, "event_offset", &offset);
    set_open(r, s->file, "cell", &cell);
    set_open(r, s->file, "energy", &energy);
    settle_unit(r, s, unit_of(r, s->file, energy.id));
    settle_geometry(r, s);
    if (offset.rank != 1 || offset.size[0] < 1) stop_at(r, &offset, "must be (muons + 1,)");
    if (cell.rank != 1) stop_at(r, &cell, "must be (hits,)");
    if (energy.rank != 1 || energy.size[0] != cell.size[0])
        stop(r, CALOMU_EFORMAT, "%s: /energy must have the shape of /cell, %s", r->path,
             shape_text(&cell, shape));
    set_counts(r, &offset, (double)cell.size[0], "hits");
    set_counts(r, &cell, (double)cells(s) - 1, "cells");
    s->muons = offset.size[0] - 1;
    view_numbers(r, &offset, 0, -1, &v);
    if (whole_at(&v, 0) != 0) stop_at(r, &offset, "must begin with 0");
    if (whole_at(&v, s->muons) < 0 || (uint64_t)whole_at(&v, s->muons) != cell.size[0])
        stop_at(r, &offset, "must end with the number of hits");
    view_close(&v);
    (void)H5Dclose(offset.id);
    (void)H5Dclose(cell.id);
    (void)H5Dclose(energy.id);
}

/* One value per muon that may lack: 1 if it is there. */
static int truth_open(reader *r, const source *s, const char *name, view *v)
{
    set d;
    int axis;
    if (!has(r, s->file, name)) return 0;
    set_open(r, s->file, name, &d);
    axis = column_axis(&d);
    if (axis < 0 || d.size[axis] != s->muons)
        stop_at(r, &d, "must be one number per muon, of %llu", (unsigned long long)s->muons);
    view_open(r, &d, axis, -1, H5T_NATIVE_FLOAT, v);
    return 1;
}

static size_t geant4_muon(reader *r, const source *s, view *cell, view *energy, int64_t from,
                          int64_t to, uint64_t muon)
{
    uint64_t i, n = (uint64_t)(to - from), most = cells(s);
    tool_cell_row *row;
    int64_t c;
    if (n > most && !r->job->rules.sum) too_many(r, cell, muon);
    row = row_room(r, (size_t)n);
    for (i = 0; i < n; i++) {
        c = whole_at(cell, (uint64_t)from + i);
        if (c < 0 || (uint64_t)c >= most)
            stop_at(r, &cell->d, "muon %llu has a hit in cell %lld of %llu",
                    (unsigned long long)muon, (long long)c, (unsigned long long)most);
        row[i].cell = (uint32_t)c;
        row[i].energy = hit_energy(r, s, energy, float_at(energy, (uint64_t)from + i), muon);
        row[i].row = (size_t)((uint64_t)from + i);
    }
    return settle(r, cell, (size_t)n, muon);
}

typedef struct twin {
    const char *wanted;
    char found[64];
} twin;

static herr_t twin_find(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    twin *t = user;
    (void)group;
    (void)info;
    if (strcasecmp(name, t->wanted) == 0) (void)snprintf(t->found, sizeof t->found, "%s", name);
    return 0;
}

/* Says that truth of this name is absent; under a name that differs by capitals only it is not. */
static void absent(reader *r, hid_t group, const char *name)
{
    twin t;
    memset(&t, 0, sizeof t);
    t.wanted = name;
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, twin_find, &t) < 0)
        stop(r, CALOMU_EFORMAT, "%s: its contents cannot be listed: damaged", r->path);
    if (t.found[0])
        stop(r, CALOMU_EFORMAT, "%s: no '%s', but '%s': rename it (h5py: f.move('%s', '%s'))",
             r->path, name, t.found, t.found, name);
    note(r, "%s: no %s: absent in the data file", r->path, name);
}

static void geant4_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    static const char *const name[] = { "e_true", "x", "y", "charge" };
    set d;
    view offset, cell, energy, truth[4];
    int there[4], i;
    int64_t from, to;
    uint64_t muon;
    size_t n;
    packet p;
    memset(&p, 0, sizeof p);
    set_open(r, s->file, "event_offset", &d);
    view_numbers(r, &d, 0, -1, &offset);
    set_open(r, s->file, "cell", &d);
    view_numbers(r, &d, 0, -1, &cell);
    set_open(r, s->file, "energy", &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &energy);
    for (i = 0; i < 4; i++) {
        there[i] = i == 3 && r->job->no_charge ? 0 : truth_open(r, s, name[i], &truth[i]);
        if (i == 3 && r->job->no_charge)
            note(r, "%s: no charge: absent in the data file", r->path);
        else if (!there[i])
            absent(r, s->file, name[i]);
    }
    if (there[1] != there[2])
        stop(r, CALOMU_EFORMAT, "%s: has only one of /x and /y", r->path);
    for (muon = low; muon < high; muon++) {
        from = whole_at(&offset, muon);
        to = whole_at(&offset, muon + 1);
        if (from < 0 || to < from || (uint64_t)to > cell.length)
            stop_at(r, &offset.d, "must not fall, nor pass the number of hits");
        n = geant4_muon(r, s, &cell, &energy, from, to, muon);
        p.energy = truth_at(&truth[0], there[0], muon);
        p.x = truth_at(&truth[1], there[1], muon);
        p.y = truth_at(&truth[2], there[2], muon);
        p.charge = truth_at(&truth[3], there[3], muon);
        if (there[3] && p.charge != 1 && p.charge != -1)
            stop_at(r, &truth[3].d, "a charge that is not +1 or -1; for files that keep something "
                    "else there: --no-charge");
        send_muon(r, &p, r->hits, n, NULL);
    }
}

/* ---- foldfile */

static int fold_order(const void *a, const void *b)
{
    uint32_t i = ((const fold *)a)->number, j = ((const fold *)b)->number;
    return i < j ? -1 : i > j;
}

/* The number of "fold_12"; -1 for any other name. */
static long fold_number(const char *name)
{
    size_t n = strlen(name);
    if (strncmp(name, "fold_", 5) != 0 || n < 6 || n > 14) return -1;
    if (strspn(name + 5, "0123456789") != n - 5) return -1;
    return strtol(name + 5, NULL, 10);
}

typedef struct fold_list {
    source *s;
    int room;
} fold_list;

static herr_t fold_add(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    fold_list *list = user;
    source *s = list->s;
    fold *bigger;
    (void)group;
    (void)info;
    if (fold_number(name) < 0) return 0;
    if (s->n_folds == list->room) {
        if (s->n_folds >= FOLDS_MOST) return -1;
        list->room = 2 * list->room + 64;
        bigger = realloc(s->folds, (size_t)list->room * sizeof *bigger);
        if (!bigger) list->room = -1;
        if (!bigger) return -1;
        s->folds = bigger;
    }
    memset(&s->folds[s->n_folds], 0, sizeof *s->folds);
    (void)snprintf(s->folds[s->n_folds].name, sizeof s->folds->name, "%s", name);
    s->folds[s->n_folds++].number = (uint32_t)fold_number(name);
    return 0;
}

static void fold_find(reader *r, source *s)
{
    fold_list list = { s, 0 };
    int i, kept = 0;
    if (H5Literate(s->file, H5_INDEX_NAME, H5_ITER_INC, NULL, fold_add, &list) < 0)
        stop(r, list.room < 0 ? CALOMU_EMEMORY : CALOMU_EFORMAT, "%s: its groups cannot be listed:"
             " %s", r->path, list.room < 0 ? "no memory" : "damaged");
    if (s->n_folds == 0) stop(r, CALOMU_EFORMAT, "%s: no group fold_0, fold_1, ... in it", r->path);
    qsort(s->folds, (size_t)s->n_folds, sizeof *s->folds, fold_order);
    for (i = 1; i < s->n_folds; i++)
        if (s->folds[i].number == s->folds[i - 1].number)
            stop(r, CALOMU_EFORMAT, "%s: %s and %s have the same number", r->path,
                 s->folds[i - 1].name, s->folds[i].name);
    for (i = 0; i < s->n_folds; i++)
        if (r->job->fold < 0 || s->folds[i].number == (uint32_t)r->job->fold)
            s->folds[kept++] = s->folds[i];
    s->n_folds = kept;
    if (kept == 0) stop(r, CALOMU_EUSAGE, "%s: no group fold_%d in it", r->path, r->job->fold);
}

/* cont_feats: a list of the 28 names, in the order of the columns. */
static void fold_columns(reader *r, source *s)
{
    const char *at, *found;
    char *text = text_of_set(r, s->file, "meta_data/cont_feats"), name[64];
    int column = 0, i;
    if (!json_find(text, NULL, &found) || !(at = json_mark(text, '[')))
        stop(r, CALOMU_EFORMAT, "%s: /meta_data/cont_feats is no list of names", r->path);
    for (i = 0; i < CALOMU_FEATURES; i++) s->column[i] = -1;
    while ((at = json_string(at, name, sizeof name))) {
        for (i = 0; i < CALOMU_FEATURES; i++)
            if (strcmp(name, calomu_feature_name(i)) == 0) break;
        if (i == CALOMU_FEATURES || s->column[i] >= 0)
            stop(r, CALOMU_EFORMAT, "%s: /meta_data/cont_feats: feature '%s' is %s", r->path, name,
                 i == CALOMU_FEATURES ? "none of the 28" : "there twice");
        s->column[i] = column++;
        if (!(at = json_mark(at, ','))) break;
    }
    for (i = 0; i < CALOMU_FEATURES; i++)
        if (s->column[i] < 0)
            stop(r, CALOMU_EFORMAT, "%s: /meta_data/cont_feats: feature '%s' is missing", r->path,
                 calomu_feature_name(i));
}

/* matrix_feats: {"present_feats": ["E"], "shape": [1, 50, 32, 32], "is_sparse": true} */
static void fold_matrix(reader *r, source *s)
{
    const char *sparse, *shape;
    char *text = text_of_set(r, s->file, "meta_data/matrix_feats");
    double n[4], last = 0;
    int rank = 0;
    if (!json_find(text, "is_sparse", &sparse) || !json_find(text, "shape", &shape))
        stop(r, CALOMU_EFORMAT, "%s: /meta_data/matrix_feats is no JSON object", r->path);
    if (!sparse || !json_word(sparse, "true"))
        stop(r, CALOMU_EFORMAT, "%s: /meta_data/matrix_feats: is_sparse must be true: only sparse "
             "matrix_inputs are read", r->path);
    shape = shape ? json_mark(shape, '[') : NULL;
    while (shape && rank < 5 && (shape = json_number(shape, &last))) {
        if (rank < 4) n[rank] = last;
        rank++;
        if (!(shape = json_mark(shape, ','))) break;
    }
    if (!((rank == 4 && n[0] == 1) || rank == 3))
        stop(r, CALOMU_EFORMAT, "%s: /meta_data/matrix_feats: shape must be [1, nz, nx, ny]",
             r->path);
    settle_grid(r, s, rank == 4 ? n + 1 : n);
}

static void fold_name(const fold *f, const char *set_name, char text[80])
{
    (void)snprintf(text, 80, "%s/%s", f->name, set_name);
}

static void fold_survey(reader *r, source *s)
{
    set targets, inputs, matrix;
    char name[80];
    int i;
    if (r->job->unit == UNIT_MEV)
        stop(r, CALOMU_EUSAGE, "%s: foldfiles are in GeV; leave out --energy-unit", r->path);
    fold_find(r, s);
    fold_columns(r, s);
    fold_matrix(r, s);
    for (i = 0; i < s->n_folds; i++) {
        fold_name(&s->folds[i], "targets", name);
        set_open(r, s->file, name, &targets);
        if (!(targets.rank == 1 || (targets.rank == 2 && targets.size[1] == 1)))
            stop_at(r, &targets, "must be (muons, 1) or (muons,)");
        fold_name(&s->folds[i], "inputs", name);
        set_open(r, s->file, name, &inputs);
        if (inputs.rank != 2 || inputs.size[0] != targets.size[0]
            || inputs.size[1] != CALOMU_FEATURES)
            stop_at(r, &inputs, "must be (muons, 28), with as many muons as targets has%s",
                    inputs.rank == 2 && inputs.size[0] == CALOMU_FEATURES ? TRANSPOSED : "");
        fold_name(&s->folds[i], "matrix_inputs", name);
        set_open(r, s->file, name, &matrix);
        if (matrix.rank != 2 || matrix.size[0] != 6)
            stop_at(r, &matrix, "must be (6, hits)%s", matrix.rank == 2 && matrix.size[1] == 6
                                                           ? TRANSPOSED : "");
        set_counts(r, &matrix, fmax((double)targets.size[0],
                   fmax(s->info.geometry.nz, fmax(s->info.geometry.nx, s->info.geometry.ny))) - 1,
                   "events and cells");
        s->folds[i].muons = targets.size[0];
        s->muons += targets.size[0];
        (void)H5Dclose(targets.id);
        (void)H5Dclose(inputs.id);
        (void)H5Dclose(matrix.id);
    }
    s->info.features = CALOMU_FEATURES_STANDARDISED_UNKNOWN;
    s->info.feature_options.convention = CALOMU_CONVENTION_AUTHORS;
}

/* Row `row` of matrix_inputs at hit i: a whole number below `limit`. */
static uint32_t matrix_whole(view *row, uint64_t i, double limit)
{
    static const char *const what[] = { "energy", "event", "channel", "z", "x", "y" };
    double value = *(const double *)view_at(row, i);
    if (!(value >= 0 && value < limit) || value != floor(value))
        stop_at(row->r, &row->d, "hit %llu has %s %g", (unsigned long long)i, what[row->start[0]],
                value);
    return (uint32_t)value;
}

/* The hits of the muon that begins at *at into r->hits; returns how many. */
static size_t fold_hits(reader *r, const source *s, view row[6], uint64_t muon, double muons,
                        uint64_t *at)
{
    const calomu_geometry *g = &s->info.geometry;
    uint64_t most = cells(s);
    uint32_t event, z, x, y;
    tool_cell_row *to;
    size_t n = 0;
    for (; *at < row[0].length; ++*at) {
        event = matrix_whole(&row[1], *at, muons);
        if (event > muon) break;
        if (event < muon) stop_at(r, &row[1].d, "its hits are not sorted by event");
        if (n == most && !r->job->rules.sum) too_many(r, &row[0], muon);
        (void)matrix_whole(&row[2], *at, 1);
        z = matrix_whole(&row[3], *at, g->nz);
        x = matrix_whole(&row[4], *at, g->nx);
        y = matrix_whole(&row[5], *at, g->ny);
        to = row_room(r, n + 1) + n;
        to->cell = (z * (uint32_t)g->nx + x) * (uint32_t)g->ny + y;
        to->energy = hit_energy(r, s, &row[0], float_at(&row[0], *at), muon);
        to->row = (size_t)*at;
        n++;
    }
    return settle(r, &row[0], n, muon);
}

static void fold_one(reader *r, source *s, const fold *f, uint64_t low, uint64_t high)
{
    set d;
    view row[6], inputs, targets;
    char name[80];
    float features[CALOMU_FEATURES];
    const float *in;
    uint64_t muon, at = 0;
    size_t n;
    packet p;
    int i;
    memset(&p, 0, sizeof p);
    fold_name(f, "matrix_inputs", name);
    set_open(r, s->file, name, &d);
    for (i = 0; i < 6; i++)
        view_open(r, &d, 1, i, i ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT, &row[i]);
    fold_name(f, "inputs", name);
    set_open(r, s->file, name, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &inputs);
    fold_name(f, "targets", name);
    set_open(r, s->file, name, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &targets);
    p.x = p.y = p.charge = CALOMU_ABSENT;
    for (muon = 0; muon < high; muon++) {
        n = fold_hits(r, s, row, muon, (double)f->muons, &at);
        if (muon < low) continue;
        in = view_at(&inputs, muon);
        for (i = 0; i < CALOMU_FEATURES; i++) {
            features[i] = in[s->column[i]];
            if (!isfinite(features[i])) stop_at(r, &inputs.d, "a feature is not finite");
        }
        p.energy = fabsf(truth_at(&targets, 1, muon));
        send_muon(r, &p, r->hits, n, features);
    }
    for (i = 0; i < 6; i++) view_close(&row[i]);
    (void)H5Dclose(row[0].d.id);
    view_close(&inputs);
    (void)H5Dclose(inputs.d.id);
    view_close(&targets);
    (void)H5Dclose(targets.d.id);
}

static void fold_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    uint64_t begin = 0, end;
    int i;
    for (i = 0; i < s->n_folds; i++, begin = end) {
        end = begin + s->folds[i].muons;
        if (end > low && begin < high)
            fold_one(r, s, &s->folds[i], low > begin ? low - begin : 0,
                     (high < end ? high : end) - begin);
    }
}

/* ---- perfile */

static void perfile_survey(reader *r, source *s)
{
    set d;
    const char *found;
    char *text, unit[64];
    double n[3];
    int i;
    set_open(r, s->file, "E", &d);
    if (!(d.rank == 4 || (d.rank == 5 && d.size[1] == 1)))
        stop_at(r, &d, "must be (muons, 1, nz, nx, ny) or (muons, nz, nx, ny)%s",
                d.rank == 5 && d.size[3] == 1 ? TRANSPOSED : "");
    for (i = 0; i < 3; i++) n[i] = (double)d.size[d.rank - 3 + i];
    settle_grid(r, s, n);
    s->muons = d.size[0];
    text = text_of_set(r, s->file, "meta");
    if (!json_find(text, "units", &found))
        stop(r, CALOMU_EFORMAT, "%s: /meta is no JSON object", r->path);
    if (found && !json_string(found, unit, sizeof unit))
        stop(r, CALOMU_EFORMAT, "%s: /meta: units is no text", r->path);
    /* The authors' energies are in GeV; the text need not say so. */
    s->unsaid = !found && r->job->unit == UNIT_UNSAID;
    settle_unit(r, s, found ? unit : s->unsaid ? "GeV" : NULL);
    set_open(r, s->file, "y", &d);
    if (!(d.rank == 1 || (d.rank == 2 && d.size[1] == 1)) || d.size[0] != s->muons)
        stop_at(r, &d, "must be one number per muon of /E");
}

static void perfile_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    set d;
    view energy, target;
    uint64_t muon, i, most = cells(s);
    const float *e;
    size_t n;
    packet p;
    memset(&p, 0, sizeof p);
    set_open(r, s->file, "E", &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &energy);
    set_open(r, s->file, "y", &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &target);
    p.x = p.y = p.charge = CALOMU_ABSENT;
    (void)row_room(r, (size_t)most);
    for (muon = low; muon < high; muon++) {
        e = view_at(&energy, muon);
        for (i = n = 0; i < most; i++) {
            if (e[i] == 0) continue;
            r->rows[n].cell = (uint32_t)i;
            r->rows[n].row = (size_t)i;
            r->rows[n++].energy = hit_energy(r, s, &energy, e[i], muon);
        }
        p.energy = fabsf(truth_at(&target, 1, muon));
        n = settle(r, &energy, n, muon);
        send_muon(r, &p, r->hits, n, NULL);
    }
}

/* ---- what a file holds */

typedef struct listing {
    char text[200];
    layout layout;
} listing;

static herr_t listing_add(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    listing *l = user;
    size_t n = strlen(l->text);
    layout found = LAYOUT_AUTO;
    (void)group;
    (void)info;
    if (strcmp(name, "event_offset") == 0) found = LAYOUT_GEANT4;
    else if (strcmp(name, "meta_data") == 0 || fold_number(name) >= 0) found = LAYOUT_FOLDFILE;
    else if (strcmp(name, "E") == 0) found = LAYOUT_PERFILE;
    else if (strcmp(name, "hits") == 0 || strcmp(name, "default_ntuples") == 0)
        found = LAYOUT_TABLE;
    if (l->layout == LAYOUT_AUTO) l->layout = found;
    if (n < 120)
        (void)snprintf(l->text + n, sizeof l->text - n, "%s%.40s", n ? ", " : "", name);
    return 0;
}

/* ---- table */

typedef enum table_kind { TABLE_RECORDS, TABLE_COLUMNS, TABLE_GEANT4, TABLE_BLOCKS } table_kind;

typedef struct table {
    char path[NAME_MOST];
    table_kind kind;
    uint64_t rows;
    int opened;                      /* columns: rows is known */
} table;

static const char *const table_word[2] = { "hits", "truth" };

/* "PATH/NAME" into text; a path too long stops. */
static void join(reader *r, const char *path, const char *name, char text[NAME_MOST])
{
    int n = snprintf(text, NAME_MOST, "%s/%s", path, name);
    if (n < 0 || n >= NAME_MOST)
        stop(r, CALOMU_EFORMAT, "%s: a name too long: %.80s/%.80s", r->path, path, name);
}

static int has_below(reader *r, hid_t file, const char *path, const char *name)
{
    char text[NAME_MOST];
    join(r, path, name, text);
    return has(r, file, text);
}

/* Finds the table of hits (0) or truth (1), and of which kind it is; 0: there is none. */
static int table_find(reader *r, const source *s, int which, table *t)
{
    const char *given = r->job->table[which];
    char path[NAME_MOST];
    hid_t object;
    H5I_type_t kind;
    memset(t, 0, sizeof *t);
    (void)snprintf(t->path, sizeof t->path, "%s",
                   given ? given + (*given == '/') : table_word[which]);
    if (!has(r, s->file, t->path)) {
        if (given) stop(r, CALOMU_EUSAGE, "%s: no table /%s in it", r->path, t->path);
        (void)snprintf(t->path, sizeof t->path, "default_ntuples/%s", table_word[which]);
        if (!has(r, s->file, t->path)) return 0;
    }
    (void)snprintf(path, sizeof path, "%s", t->path);
    object = H5Oopen(s->file, path, H5P_DEFAULT);
    kind = object < 0 ? H5I_BADID : H5Iget_type(object);
    if (object >= 0) (void)H5Oclose(object);
    if (kind != H5I_DATASET && kind != H5I_GROUP)
        stop(r, CALOMU_EFORMAT, "%s: /%s is no table", r->path, t->path);
    if (kind == H5I_DATASET) return 1;
    t->kind = TABLE_COLUMNS;
    if (has_below(r, s->file, t->path, "table")) {
        join(r, path, "table", t->path);
        t->kind = TABLE_RECORDS;
    } else if (has_below(r, s->file, t->path, "block0_items")) {
        t->kind = TABLE_BLOCKS;
    } else if (has_below(r, s->file, t->path, "forms")
               && has_below(r, s->file, t->path, "columns")) {
        t->kind = TABLE_GEANT4;
    }
    return 1;
}

/* Where the name stands in a list of names of fixed length, as pandas writes; -1: nowhere. */
static int items_find(reader *r, hid_t file, const char *path, const char *name, hsize_t *n)
{
    hid_t id = plain_open(r, file, path), type = H5Dget_type(id), space = H5Dget_space(id);
    size_t size, length = strlen(name);
    char *text;
    int at = -1, i;
    size = H5Tget_size(type);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 || size > 1024
        || H5Sget_simple_extent_ndims(space) != 1 || H5Sget_simple_extent_dims(space, n, NULL) < 0
        || *n > 1024)
        stop(r, CALOMU_EFORMAT, "%s: /%s is no list of names", r->path, path);
    text = take(r, (size_t)*n, size);
    memset(text, 0, (size_t)*n * size);
    if (H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s cannot be read: damaged", r->path, path);
    for (i = 0; i < (int)*n && at < 0; i++)
        if (length <= size && memcmp(text + (size_t)i * size, name, length) == 0
            && (length == size || text[(size_t)i * size + length] == 0))
            at = i;
    free(text);
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    (void)H5Dclose(id);
    return at;
}

/* A column of pandas' fixed format: block N holds the columns named in blockN_items. */
static int blocks_column(reader *r, const source *s, const table *t, const char *name, view *v)
{
    char items[NAME_MOST], block[32];
    hsize_t n = 0;
    int i, at;
    set d;
    for (i = 0; i < 64; i++) {
        (void)snprintf(block, sizeof block, "block%d_items", i);
        join(r, t->path, block, items);
        if (!has(r, s->file, items)) return 0;
        at = items_find(r, s->file, items, name, &n);
        if (at < 0) continue;
        (void)snprintf(block, sizeof block, "block%d_values", i);
        join(r, t->path, block, items);
        set_open(r, s->file, items, &d);
        if (d.rank != 2 || d.size[1] != n || H5Aexists(d.id, "transposed") <= 0)
            stop_at(r, &d, "must be (rows, %llu), as pandas writes it", (unsigned long long)n);
        view_numbers(r, &d, 0, at, v);
        return 1;
    }
    return 0;
}

/* A column of GEANT4's analysis manager: a group NAME with the numbers in `pages`, which is not
   there if there are none, and their count in `entries`, which is written last. */
static void geant4_column(reader *r, const source *s, const char *path, view *v)
{
    char name[NAME_MOST];
    uint64_t entries = 0;
    hid_t id, space;
    set d;
    join(r, path, "entries", name);
    if (!has(r, s->file, name))
        stop(r, CALOMU_EFORMAT, "%s: /%s has no entries: was GEANT4 killed before it closed the "
             "file?", r->path, path);
    id = plain_open(r, s->file, name);
    space = H5Dget_space(id);
    if (H5Sget_simple_extent_npoints(space) != 1
        || H5Dread(id, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &entries) < 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s is no number", r->path, name);
    (void)H5Sclose(space);
    (void)H5Dclose(id);
    memset(v, 0, sizeof *v);
    v->r = r;
    (void)snprintf(v->d.name, sizeof v->d.name, "%s", path);
    if (entries == 0) return;
    join(r, path, "pages", name);
    set_open(r, s->file, name, &d);
    if (d.rank != 1 || d.size[0] != entries)
        stop_at(r, &d, "must be (%llu,), as entries says", (unsigned long long)entries);
    view_numbers(r, &d, 0, -1, v);
}

static int records_column(reader *r, const source *s, const table *t, const char *name, view *v)
{
    hid_t id = H5Dopen2(s->file, t->path, H5P_DEFAULT), type = id < 0 ? -1 : H5Dget_type(id);
    size_t size;
    int at;
    set d;
    if (type < 0 || H5Tget_class(type) != H5T_COMPOUND)
        stop(r, CALOMU_EFORMAT, "%s: /%s is no table (records, or a group of columns)", r->path,
             t->path);
    at = H5Tget_member_index(type, name);
    if (at < 0 && H5Tget_member_index(type, "values_block_0") >= 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s: pandas has put its columns together; write it with "
             "to_hdf(..., format='table', data_columns=True)", r->path, t->path);
    (void)H5Tclose(type);
    (void)H5Dclose(id);
    if (at < 0) return 0;
    size = set_look(r, s->file, t->path, name, &d);
    if (d.rank != 1) stop_at(r, &d, "must be (rows,)");
    check_storage(r, s->file, &d, size, 0);
    view_numbers(r, &d, 0, -1, v);
    return 1;
}

/* Opens a column; 0: it is not there.  All have the same length. */
static int table_column(reader *r, const source *s, table *t, const char *name, view *v)
{
    char path[NAME_MOST];
    set d;
    int there = 1, axis;
    join(r, t->path, name, path);
    if (t->kind == TABLE_RECORDS) there = records_column(r, s, t, name, v);
    else if (t->kind == TABLE_BLOCKS) there = blocks_column(r, s, t, name, v);
    else if (!has(r, s->file, path)) return 0;
    else if (t->kind == TABLE_GEANT4) geant4_column(r, s, path, v);
    else {
        set_open(r, s->file, path, &d);
        axis = column_axis(&d);
        if (axis < 0) stop_at(r, &d, "must be (rows,)");
        view_numbers(r, &d, axis, -1, v);
    }
    if (!there) return 0;
    if (t->opened && v->length != t->rows)
        stop_at(r, &v->d, "must have %llu rows, as the columns before it",
                (unsigned long long)t->rows);
    t->rows = v->length;
    t->opened = 1;
    return 1;
}

/* A whole number of a table: event or cell, up to `most`. */
static uint64_t table_whole(view *v, uint64_t row, double most, const char *name)
{
    double x = number_at(v, row);
    if (!(x >= 0 && x <= most) || x != floor(x))
        stop_at(v->r, &v->d, "row %llu: '%s' is %g, but must be a whole number from 0 to %.0f",
                (unsigned long long)row, name, x, most);
    if (v->d.real && x >= v->d.counts)
        stop_at(v->r, &v->d, "row %llu: '%s' is %.0f, which %s does not tell from its neighbours; "
                "write it as int64", (unsigned long long)row, name, x, v->d.type);
    return (uint64_t)x;
}

/* The number of an event.  One that is the largest of its type may be any larger one: numpy wraps
   behind it, and HDF5 stops there (70000 becomes 65535 in uint16). */
static uint64_t table_event(view *v, uint64_t row)
{
    uint64_t event = table_whole(v, row, 9007199254740991.0, "event");
    if (!v->d.real && (double)event == v->d.counts)
        stop_at(v->r, &v->d, "row %llu: 'event' is %llu, the largest that %s holds: larger ones "
                "would have wrapped or been cut to it; write it as int64", (unsigned long long)row,
                (unsigned long long)event, v->d.type);
    return event;
}

/* Opens the columns of a table, under the names that the options give them. */
static void table_open(reader *r, source *s, int which, table *t, view v[5], int there[5])
{
    const tool_column *column = r->job->column[which], *usual = tool_rows_columns[which];
    int i;
    (void)snprintf(s->rows_name[which], sizeof s->rows_name[which], "/%s", t->path);
    s->rows.name[which] = s->rows_name[which];
    for (i = 0; i < 5; i++) {
        there[i] = !column[i].optional && table_column(r, s, t, column[i].name, &v[i]);
        if (there[i] || column[i].optional) continue;
        stop(r, CALOMU_EFORMAT, "%s: /%s has no column '%s'; --%s %s=NAME says which it is%s",
             r->path, t->path, column[i].name, tool_rows_option[which], usual[i].name,
             usual[i].cell == TOOL_CELL_MAYBE ? ", - that there is none" : "");
    }
}

static void table_say(reader *r, const source *s, calomu_status status)
{
    if (status != CALOMU_OK) stop(r, status, "%s", s->rows.message);
}

static void table_truth(reader *r, source *s)
{
    table t;
    view v[5];
    listing l;
    double value[4];
    uint64_t row, event;
    int there[5], i;
    if (!table_find(r, s, 1, &t)) {
        if (r->delivering) return;
        memset(&l, 0, sizeof l);
        (void)H5Literate(s->file, H5_INDEX_NAME, H5_ITER_INC, NULL, listing_add, &l);
        note(r, "%s: no table /truth: absent in the data file; it holds: %s (--truth names a "
             "table)", r->path, l.text);
        return;
    }
    table_open(r, s, 1, &t, v, there);
    for (row = 0; row < t.rows; row++) {
        event = table_event(&v[0], row);
        for (i = 0; i < 4; i++)
            value[i] = there[i + 1] ? number_at(&v[i + 1], row) : (double)calomu_absent();
        table_say(r, s, tool_rows_truth(&s->rows, TOOL_ROWS_TRUTH, event, value));
    }
    for (i = 0; i < 5; i++)
        if (there[i]) view_close(&v[i]);
    table_say(r, s, tool_rows_number(&s->rows, TOOL_ROWS_TRUTH));
}

static void table_hit(reader *r, source *s, view v[5], uint64_t row, uint64_t event)
{
    const calomu_geometry *g = &s->info.geometry;
    uint64_t z = table_whole(&v[1], row, g->nz - 1, "iz");
    uint64_t x = table_whole(&v[2], row, g->nx - 1, "ix");
    uint64_t y = table_whole(&v[3], row, g->ny - 1, "iy");
    double energy = number_at(&v[4], row);
    if (!isfinite(energy))
        stop_at(r, &v[4].d, "row %llu: the energy is %g", (unsigned long long)row, energy);
    if (tool_rules_refuse(&r->job->rules, energy))
        stop_at(r, &v[4].d, "row %llu: the energy is negative: %g; --negative zero makes it 0",
                (unsigned long long)row, energy);
    table_say(r, s, tool_rows_hit(&s->rows, event,
              (uint32_t)((z * (uint64_t)g->nx + x) * (uint64_t)g->ny + y),
              s->mev ? energy * 1e-3 : energy));
}

static void table_hits(reader *r, source *s, table *t)
{
    const calomu_geometry *g = &s->info.geometry;
    view v[5];
    uint64_t row, event;
    int there[5], i;
    table_open(r, s, 0, t, v, there);
    if (t->rows == 0) return;
    if (s->rows.event && s->rows.n_muons)
        set_counts(r, &v[0].d, (double)s->rows.event[s->rows.n_muons - 1], "events of truth");
    set_counts(r, &v[1].d, g->nz - 1, "cells");
    set_counts(r, &v[2].d, g->nx - 1, "cells");
    set_counts(r, &v[3].d, g->ny - 1, "cells");
    for (row = 0; row < t->rows; row++) {
        event = table_event(&v[0], row);
        table_hit(r, s, v, row, event);
    }
    for (i = 0; i < 5; i++) view_close(&v[i]);
}

/* The whole table is read now: which muons there are is not known before. */
static void table_survey(reader *r, source *s)
{
    hid_t object;
    table t;
    if (!table_find(r, s, 0, &t)) stop(r, CALOMU_EFORMAT, "%s: no table /hits in it", r->path);
    object = H5Oopen(s->file, t.path, H5P_DEFAULT);
    if (object < 0) stop(r, CALOMU_EFORMAT, "%s: /%s cannot be opened", r->path, t.path);
    settle_unit(r, s, unit_of(r, s->file, object));
    (void)H5Oclose(object);
    settle_geometry(r, s);
    s->rows.rules = r->job->rules;
    s->rows.geometry = s->info.geometry;
    s->rows.row_word = "row";
    table_truth(r, s);
    table_hits(r, s, &t);
    table_say(r, s, tool_rows_finish(&s->rows));
    s->muons = s->rows.n_muons;
}

static void table_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    char remark[300];
    calomu_event event;
    uint64_t muon;
    packet p;
    memset(&p, 0, sizeof p);
    if (tool_rows_remark(&s->rows, remark)) note(r, "%s: %s", r->path, remark);
    if (r->job->no_charge) note(r, "%s: no charge: absent in the data file", r->path);
    for (muon = low; muon < high; muon++) {
        table_say(r, s, tool_rows_muon(&s->rows, (size_t)muon, &event));
        p.energy = event.energy;
        p.x = event.x;
        p.y = event.y;
        p.charge = r->job->no_charge ? CALOMU_ABSENT : event.charge;
        send_muon(r, &p, event.hits, event.n_hits, NULL);
    }
}

/* ---- any */

/* Opens a file.  The library locks it, against programs that write it; where a file system has no
   locks (many shared ones), it is read without: that it did not change is looked at in the end. */
static hid_t file_open(reader *r, const char *path)
{
    hid_t list = H5Pcreate(H5P_FILE_ACCESS), file = H5Fopen(path, H5F_ACC_RDONLY, list);
    int error;
    if (file < 0 && strstr(words(r), "lock")) {
        error = words_errno(r->words);
        if (error == EAGAIN || error == EACCES || error == EWOULDBLOCK)
            stop(r, CALOMU_EIO, "%s: another program has it open for writing (libhdf5: %s): let it "
                 "close the file first (h5py: f.close(), in notebooks too)", path, r->words);
#if H5_VERSION_GE(1, 10, 7)
        if (H5Pset_file_locking(list, 0, 1) >= 0) file = H5Fopen(path, H5F_ACC_RDONLY, list);
        if (file >= 0 && !r->delivering)
            note(r, "%s: read without a lock (libhdf5: %s)", path, r->words);
#endif
    }
    if (file < 0) stop_library(r, "", "cannot be opened");
    (void)H5Pclose(list);
    return file;
}

static void source_layout(reader *r, source *s)
{
    listing l;
    memset(&l, 0, sizeof l);
    s->layout = (layout)r->job->layout;
    if (s->layout == LAYOUT_AUTO && (r->job->table[0] || r->job->table[1]))
        s->layout = LAYOUT_TABLE;
    if (s->layout == LAYOUT_AUTO) {
        if (H5Literate(s->file, H5_INDEX_NAME, H5_ITER_INC, NULL, listing_add, &l) < 0)
            stop_library(r, "", "its contents cannot be listed");
        s->layout = l.layout;
    }
    if (s->layout == LAYOUT_AUTO)
        stop(r, CALOMU_EFORMAT, "%s: none of the layouts geant4, foldfile, perfile, table; it "
             "holds: %s; --hits names a table", r->path, l.text[0] ? l.text : "nothing");
    if (r->job->fold >= 0 && s->layout != LAYOUT_FOLDFILE)
        stop(r, CALOMU_EUSAGE, "%s: --fold is for the layout foldfile; this is %s", r->path,
             layout_names[s->layout]);
}

static void source_open(reader *r, const char *path, source *s)
{
    memset(s, 0, sizeof *s);
    r->path = path;
    alive();
    if (stat(path, &s->about) != 0) stop(r, CALOMU_EIO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(s->about.st_mode)) stop(r, CALOMU_EFORMAT, "%s: not a regular file", path);
    if (access(path, R_OK) != 0) stop(r, CALOMU_EIO, "%s: %s", path, strerror(errno));
    if (H5Fis_hdf5(path) <= 0)
        stop(r, CALOMU_EFORMAT, "%s: not an HDF5 file, or its writer was killed before it wrote "
             "the head", path);
    s->file = file_open(r, path);
    source_layout(r, s);
    s->info.feature_options = calomu_feature_options_default();
    if (s->layout == LAYOUT_GEANT4) geant4_survey(r, s);
    else if (s->layout == LAYOUT_FOLDFILE) fold_survey(r, s);
    else if (s->layout == LAYOUT_PERFILE) perfile_survey(r, s);
    else table_survey(r, s);
}

static void source_describe(reader *r, const source *s)
{
    const calomu_geometry *g = &s->info.geometry;
    int i, equal = 1;
    note(r, "%s: layout %s, %llu muons, %d x %d x %d cells, hits in %s%s, true energies in GeV",
         r->path, layout_names[s->layout], (unsigned long long)s->muons, g->nz, g->nx, g->ny,
         s->mev ? "MeV" : "GeV", s->unsaid ? " (not said; the authors' unit)" : "");
    if (s->layout != LAYOUT_FOLDFILE) return;
    for (i = 1; i < s->n_folds; i++) equal &= s->folds[i].muons == s->folds[0].muons;
    note(r, "%s: %d fold%s%s; features standardised with unknown mean and deviation, authors' "
         "convention; no impact point, no charge", r->path, s->n_folds, s->n_folds > 1 ? "s" : "",
         equal ? " of equal size" : " of different sizes");
}

static void source_close(reader *r, source *s)
{
    struct stat now;
    if (stat(r->path, &now) != 0 || now.st_size != s->about.st_size
        || now.st_mtime != s->about.st_mtime || now.st_ino != s->about.st_ino)
        stop(r, CALOMU_EIO, "%s: the file changed while it was read", r->path);
    (void)H5Fclose(s->file);
    free(s->folds);
    tool_rows_free(&s->rows);
}

/* NULL, or how two files differ that are to be one. */
static const char *unlike(reader *r, const calomu_data_info *a, const calomu_data_info *b)
{
    if (calomu_geometry_compare(r->c, &a->geometry, &b->geometry) != CALOMU_OK)
        return calomu_message(r->c);
    return a->features == b->features
           && a->feature_options.convention == b->feature_options.convention ? NULL
               : "one has features, the other not";
}

static void source_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    if (s->layout == LAYOUT_GEANT4) geant4_deliver(r, s, low, high);
    else if (s->layout == LAYOUT_FOLDFILE) fold_deliver(r, s, low, high);
    else if (s->layout == LAYOUT_PERFILE) perfile_deliver(r, s, low, high);
    else table_deliver(r, s, low, high);
}

/* Looks at all files first, so that what does not fit together is said before work is done. */
static void reader_run(reader *r)
{
    const order *job = r->job;
    const char *how;
    source s;
    packet p;
    uint64_t total = 0, begin = 0, end, low, high;
    int i;
    memset(&p, 0, sizeof p);
    p.kind = PACKET_HEAD;
    for (i = 0; i < job->paths; i++) {
        source_open(r, job->path[i], &s);
        source_describe(r, &s);
        how = i > 0 ? unlike(r, &s.info, &p.info) : NULL;
        if (how)
            stop(r, CALOMU_EFORMAT, "%s: its geometry or features are not those of %s: %s", r->path,
                 job->path[0], how);
        if (i == 0) p.info = s.info;
        total += s.muons;
        source_close(r, &s);
    }
    if (job->first > total || (job->count != UINT64_MAX && job->count > total - job->first))
        stop(r, CALOMU_EUSAGE, "--first and --count go past the end: there are %llu muons",
             (unsigned long long)total);
    high = job->count == UINT64_MAX ? total : job->first + job->count;
    p.total = high - job->first;
    reader_send(r, &p, NULL, 0);
    r->delivering = 1;
    for (i = 0; i < job->paths; i++, begin = end) {
        r->file = i;
        source_open(r, job->path[i], &s);
        end = begin + s.muons;
        low = job->first > begin ? job->first - begin : 0;
        if (end > job->first && begin < high)
            source_deliver(r, &s, low, (high < end ? high : end) - begin);
        source_close(r, &s);
    }
    memset(&p, 0, sizeof p);
    p.kind = PACKET_END;
    reader_send(r, &p, NULL, 0);
    if (fflush(r->pipe) != 0) _exit(CALOMU_EIO);
}

static herr_t look_for_errno(unsigned n, const H5E_error2_t *e, void *user)
{
    int *error = user;
    (void)n;
    if (e->desc && !*error) *error = words_errno(e->desc);
    if (e->maj_num == H5E_RESOURCE && (e->min_num == H5E_NOSPACE || e->min_num == H5E_CANTALLOC))
        *error = ENOMEM;
    return 0;
}

/* libhdf5 calls it when a function of its has failed.  A disk that cannot be read and memory that
   is not there must not pass for damage, whatever the function is that failed for them. */
static herr_t on_failure(hid_t stack, void *user)
{
    reader *r = user;
    int error = 0;
    (void)H5Ewalk2(stack, H5E_WALK_UPWARD, look_for_errno, &error);
    if (error == ENOMEM)
        stop(r, CALOMU_EMEMORY, "%s: no memory to read it", r->path);
    if (error == EIO || error == ESTALE || error == ETIMEDOUT)
        stop(r, CALOMU_EIO, "%s: cannot read: %s", r->path, strerror(error));
    return 0;
}

/* The child: everything below runs in a process of its own and ends with it. */
static void reader_start(const order *job, int fd)
{
    reader r;
    memset(&r, 0, sizeof r);
    r.job = job;
    r.pipe = fdopen(fd, "wb");
    if (!r.pipe || calomu_open(&r.c, NULL) != CALOMU_OK) _exit(CALOMU_EMEMORY);
    (void)setvbuf(r.pipe, NULL, _IOFBF, 1 << 16);
    tool_signals_default();
    alive();
    /* No filters from plugin folders: what a file names is not to decide which code is loaded. */
    r.path = job->path[0];
    if (H5open() < 0 || H5Eset_auto2(H5E_DEFAULT, on_failure, &r) < 0
        || H5PLset_loading_state(0) < 0 || H5Zregister(&lzf_class) < 0)
        stop(&r, CALOMU_EMEMORY, "the HDF5 library cannot start");
    reader_run(&r);
    _exit(0);
}

/* ---------------------------------------------------------------- 7 parent */

typedef struct keeper {
    const order *job;
    calomu *c;
    FILE *pipe;
    pid_t child;
    calomu_writer *writer;
    calomu_hit *hits;
    size_t room;
    uint64_t muons, n_hits;
    tool_progress progress;
    int ended;                       /* the child said END or FAIL */
} keeper;

static int keeper_get(keeper *k, void *to, size_t n)
{
    return n == 0 || fread(to, 1, n, k->pipe) == n;
}

/* Text of a NOTE or FAIL; 0 if the pipe ends. */
static int keeper_text(keeper *k, const packet *p, char text[801])
{
    if (p->n > 800 || !keeper_get(k, text, (size_t)p->n)) return 0;
    text[p->n] = 0;
    return 1;
}

/* One muon from the pipe to the file; *more 0 if the pipe ends.  Reports failures.  The child may
   have been damaged by the library it ran, so its counts are not believed either. */
static calomu_status keeper_muon(keeper *k, const packet *p, int *more)
{
    float features[CALOMU_FEATURES];
    calomu_event event;
    calomu_hit *bigger;
    calomu_status status;
    *more = 0;
    if (p->n > 1 << 24 || !k->writer || p->file < 0 || p->file >= k->job->paths) return CALOMU_OK;
    if (p->n > k->room) {
        bigger = realloc(k->hits, (size_t)p->n * sizeof *bigger);
        if (!bigger) return tool_fail(CALOMU_EMEMORY, "no memory for %llu hits",
                                      (unsigned long long)p->n);
        k->hits = bigger;
        k->room = (size_t)p->n;
    }
    if (!keeper_get(k, k->hits, (size_t)p->n * sizeof *k->hits)
        || (p->features && !keeper_get(k, features, sizeof features)))
        return CALOMU_OK;
    *more = 1;
    event.hits = k->hits;
    event.n_hits = (size_t)p->n;
    event.x = p->x;
    event.y = p->y;
    event.energy = p->energy;
    event.charge = p->charge;
    event.features = p->features ? features : NULL;
    event.losses = NULL;
    k->muons++;
    k->n_hits += p->n;
    tool_progress_at(&k->progress, k->muons, NULL);
    status = calomu_writer_add(k->writer, &event);
    if (status == CALOMU_EFORMAT || status == CALOMU_EUSAGE)
        return tool_fail(CALOMU_EFORMAT, "%s: %s", k->job->path[p->file], calomu_message(k->c));
    return status == CALOMU_OK ? CALOMU_OK : tool_report(k->c, status);
}

static calomu_status keeper_loop(keeper *k)
{
    calomu_status status = CALOMU_OK;
    char text[801];
    packet p;
    int more = 1;
    while (status == CALOMU_OK && more && !tool_stop && keeper_get(k, &p, sizeof p)) {
        switch (p.kind) {
        case PACKET_NOTE:
            more = keeper_text(k, &p, text);
            if (more) tool_notice("%s", text);
            break;
        case PACKET_FAIL:
            more = keeper_text(k, &p, text);
            if (!more) break;
            k->ended = 1;
            return tool_fail(p.status, "%s", text);
        case PACKET_HEAD:
            more = !k->writer;
            if (!more) break;
            tool_progress_begin(&k->progress, "import", "muons", p.total);
            status = calomu_writer_open(k->c, k->job->out, &p.info, &k->writer);
            if (status != CALOMU_OK) (void)tool_report(k->c, status);
            break;
        case PACKET_MUON:
            status = keeper_muon(k, &p, &more);
            break;
        case PACKET_END:
            k->ended = k->writer != NULL;
            return CALOMU_OK;
        default: more = 0;
        }
    }
    return status;
}

/* Ends the child, and says what became of it if it has not said so itself. */
static calomu_status keeper_wait(keeper *k, calomu_status status)
{
    int how = 0, broken = ferror(k->pipe);
    (void)fclose(k->pipe);
    if (broken || status != CALOMU_OK || tool_stop) (void)kill(k->child, SIGKILL);
    while (waitpid(k->child, &how, 0) < 0 && errno == EINTR) continue;
    if (status != CALOMU_OK || k->ended || tool_stop) return status;
    if (broken) return tool_fail(CALOMU_EIO, "cannot read from the process that reads");
    if (WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL)
        return tool_fail(CALOMU_EMEMORY, "the process that reads was killed; is there no memory?");
    if (WIFSIGNALED(how) && WTERMSIG(how) == SIGPROF)
        return tool_fail(CALOMU_EFORMAT, "reading does not get on: an HDF5 file is damaged");
    if (WIFEXITED(how) && WEXITSTATUS(how) == CALOMU_EMEMORY)
        return tool_fail(CALOMU_EMEMORY, "no memory to read");
    return tool_fail(CALOMU_EFORMAT, "the HDF5 library crashed: an HDF5 file is damaged");
}

static calomu_status keeper_run(const order *job)
{
    keeper k;
    calomu_status status;
    int ends[2];
    memset(&k, 0, sizeof k);
    k.job = job;
    k.child = -1;
    status = calomu_open(&k.c, NULL);
    if (status != CALOMU_OK) return tool_fail(status, "cannot start: no memory");
    if (pipe(ends) != 0 || (k.child = fork()) < 0) {
        status = errno == EAGAIN || errno == ENOMEM ? CALOMU_EMEMORY : CALOMU_EIO;
        (void)tool_fail(status, "cannot start a process: %s", strerror(errno));
        calomu_close(k.c);
        return status;
    }
    if (k.child == 0) {
        (void)close(ends[0]);
        reader_start(job, ends[1]);
    }
    (void)close(ends[1]);
    tool_signals_catch();
    k.pipe = fdopen(ends[0], "rb");
    if (k.pipe) {
        status = keeper_wait(&k, keeper_loop(&k));
    } else {
        (void)kill(k.child, SIGKILL);
        status = tool_fail(CALOMU_EMEMORY, "no memory");
    }
    tool_progress_end(&k.progress);
    if (status == CALOMU_OK && !tool_stop && k.writer) {
        status = calomu_writer_close(k.writer);
        if (status != CALOMU_OK) (void)tool_report(k.c, status);
        else tool_notice("%s: %llu muons, %llu hits", job->out, (unsigned long long)k.muons,
                         (unsigned long long)k.n_hits);
    } else {
        calomu_writer_abandon(k.writer);
    }
    free(k.hits);
    calomu_close(k.c);
    tool_signals_obey();
    return status;
}

/* ---------------------------------------------------------------- 8 command line */

static const char notes[] =
    "Layouts (tools/import.md has shapes, types and code that writes them):\n"
    "  table     a row per hit in /hits: event,iz,ix,iy,energy; a row per muon in\n"
    "            /truth: event,energy,x,y,charge; as records (h5py, PyTables, R), as\n"
    "            groups of columns, by pandas, or as ntuples of GEANT4 in\n"
    "            /default_ntuples\n"
    "  geant4    event_offset (muons+1,); cell, energy (hits,); e_true, x, y, charge\n"
    "            (muons,)\n"
    "  perfile   E (muons,1,nz,nx,ny); y (muons,); the JSON text meta\n"
    "  foldfile  fold_i/inputs (muons,28), targets (muons,1), matrix_inputs (6,hits)\n"
    "            with the rows energy, muon, 0, z, x, y; the JSON texts cont_feats,\n"
    "            matrix_feats in meta_data\n"
    "Attributes of the root group: energy_unit; shape, pitch_mm, origin_mm, field_T\n"
    "(table, geant4).  Several files of the same geometry become one data file, in\n"
    "the order given.  The energy unit is that of the hits; true energies are in GeV,\n"
    "lengths in mm always.  Numbers of muons count from 0.\n\n"
    "Exit codes: 0 done, 2 usage, 3 bad or inconsistent file, 4 reading or writing\n"
    "failed, 5 no memory.";

/* Finds the names of columns before there is a child, and runs. */
static calomu_status import_run(order *job)
{
    char *names[2] = { NULL, NULL };
    calomu_status status = CALOMU_OK;
    int i;
    for (i = 0; i < 2 && status == CALOMU_OK; i++)
        status = tool_columns_rename(job->column[i], tool_rows_columns[i], 5, tool_rows_option[i],
                                     job->columns[i], &names[i]);
    if (status == CALOMU_OK) status = keeper_run(job);
    for (i = 0; i < 2; i++) free(names[i]);
    return status;
}

static int import(order *job, int argc, char **argv)
{
    tool_operand operands[] = {
        { .name = "IN.h5", .target = job->path, .most = sizeof job->path / sizeof *job->path,
          .count = &job->paths },
        { .name = NULL }
    };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &job->out, .value = "OUT.cmu",
          .file = TOOL_WRITES,
          .help = "data file to write", .needed = 1 },
        { .name = "layout", .type = TOOL_CHOICE, .target = &job->layout,
          .value = "auto|geant4|foldfile|perfile|table", .help = "layout of the files" },
        { .name = "energy-unit", .type = TOOL_CHOICE, .target = &job->unit, .value = "GeV|MeV",
          .help = "unit of the hits, where the files do not say it", .preset = "" },
        { .name = "geometry", .type = TOOL_GEOMETRY, .target = &job->geometry,
          .value = "nz,nx,ny,pz,px,py[,z0,x0,y0[,B]]",
          .help = "cells, pitches (mm), low corner (mm; centred in x and y), field (T), where the "
                  "files do not say it",
          .preset = "for the authors' files that of the paper" },
        { .name = "fold", .type = TOOL_INT, .target = &job->fold, .value = "K",
          .help = "only this fold of a foldfile", .preset = "all", .high = 999999999 },
        { .name = "first", .type = TOOL_U64, .target = &job->first, .value = "K",
          .help = "number of the first muon" },
        { .name = "count", .type = TOOL_U64, .target = &job->count, .value = "N",
          .help = "how many muons", .preset = "all" },
        TOOL_OPTIONS_CELLS(job->rules),
        { .name = "hits", .type = TOOL_STRING, .target = &job->table[0], .value = "PATH",
          .help = "where in the file the table of hits is",
          .preset = "/hits or /default_ntuples/hits" },
        { .name = "truth", .type = TOOL_STRING, .target = &job->table[1], .value = "PATH",
          .help = "where in the file the table of truth is",
          .preset = "/truth or /default_ntuples/truth" },
        TOOL_OPTION_COLUMNS("hits-columns", &job->columns[0], "the hits"),
        TOOL_OPTION_COLUMNS("truth-columns", &job->columns[1], "truth"),
        TOOL_OPTION_GAPS(job->rules),
        { .name = "no-charge", .type = TOOL_FLAG, .target = &job->no_charge,
          .help = "leave out the charge (files of showers keep something else there)" },
        { .name = NULL }
    };
    tool_usage usage = {
        .program = "calomu-import-h5", .operands = operands, .options = options,
        .purpose = "Makes one data file (.cmu) of HDF5 files of muons.", .notes = notes
    };
    int code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    job->geometry_given = tool_given(&usage, "geometry");
    return (int)import_run(job);
}

int main(int argc, char **argv)
{
    static order job;                  /* too large for a stack */
    job.unit = UNIT_UNSAID;
    job.fold = -1;
    job.count = UINT64_MAX;
    job.geometry = calomu_geometry_default();
    tool_begin("calomu-import-h5");
    return tool_finish(import(&job, argc, argv));
}
