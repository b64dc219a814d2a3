/* import_h5.c - the program calomu-import-h5: HDF5 files of muons to one data file (.cmu).

   Three layouts (what makes a layout known in brackets):
     geant4    [event_offset]  event_offset (n+1), cell and energy per hit, e_true, x, y, charge;
               attributes energy_unit, shape, pitch_mm, origin_mm, field_T of the root group
     foldfile  [meta_data, fold_0 ...]  the authors' public files: fold_i/inputs (n,28) features,
               fold_i/targets (n,1) or (n,), fold_i/matrix_inputs (6,hits) with the rows energy,
               event, channel, z, x, y; JSON texts in meta_data
     perfile   [E]  the authors' files per ROOT file: E (n,1,nz,nx,ny) or (n,nz,nx,ny), y (n,),
               JSON text meta

   Two processes.  libhdf5 is known to crash on damaged files, so everything that touches it runs in
   a child (sections 2 to 6), which sends muons through a pipe; the parent (section 7) never calls
   it, checks what comes, writes the data file, and turns the end of a child that crashed or that
   computes without end into one line and an exit code.  The child may therefore give up anywhere:
   `stop` sends the reason and ends the process, and memory is returned by its end.

   Sections: 2 pipe, 3 LZF, 4 JSON, 5 HDF5, 6 layouts, 7 parent, 8 command line.  */
#include "calomu_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hdf5.h>

/* ---------------------------------------------------------------- 2 pipe */

typedef enum layout { LAYOUT_AUTO, LAYOUT_GEANT4, LAYOUT_FOLDFILE, LAYOUT_PERFILE } layout;
static const char *const layout_names[] = { "auto", "geant4", "foldfile", "perfile" };

enum { UNIT_GEV, UNIT_MEV, UNIT_UNSAID };

enum {
    RANK_MOST = 5,
    FOLDS_MOST = 100000,             /* the public files have 36 */
    TEXT_MOST = 1 << 20,             /* bytes of a JSON text */
    CPU_SECONDS = 120                /* of the child, without a muon or a block of numbers */
};
#define CHUNK_MOST ((hsize_t)64 << 20)      /* bytes of a chunk; h5py makes 1 MiB at most */
#define PACKED_MOST 2000                    /* deflate packs 1032:1 at most, LZF 88:1 */

typedef struct order {                 /* what the command line asks for */
    const char *path[4096];
    int paths;
    const char *out;
    int layout, unit;
    int fold;                        /* -1: all */
    uint64_t first, count;           /* count UINT64_MAX: all */
    int no_charge;
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
    FILE *pipe;
    calomu *c;
    calomu_hit *hits;                /* of the muon at hand */
    size_t room;
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

typedef struct set {                 /* an open dataset */
    char name[80];
    hid_t id;
    int rank;
    hsize_t size[RANK_MOST];         /* extents */
    hsize_t chunk[RANK_MOST];        /* 1 where not chunked */
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

static void stop_at(reader *r, const set *d, const char *text)
#ifdef __GNUC__
    __attribute__((noreturn))
#endif
    ;
static void stop_at(reader *r, const set *d, const char *text)
{
    char shape[128];
    stop(r, CALOMU_EFORMAT, "%s: /%s %s: %s", r->path, d->name, shape_text(d, shape), text);
}

/* A file is read by itself: no link leads into another file, whoever wrote it. */
static herr_t no_other_file(const char *parent, const char *group, const char *file,
                            const char *object, unsigned *flags, hid_t list, void *user)
{
    (void)parent; (void)group; (void)file; (void)object; (void)flags; (void)list; (void)user;
    return -1;
}

/* 1 if the file has this link and it leads somewhere. */
static int has(reader *r, hid_t file, const char *name)
{
    hid_t list = H5Pcreate(H5P_LINK_ACCESS);
    int there;
    if (list < 0 || H5Pset_elink_cb(list, no_other_file, NULL) < 0)
        stop(r, CALOMU_EMEMORY, "%s: HDF5 library: no memory", r->path);
    there = H5Lexists(file, name, list) > 0 && H5Oexists_by_name(file, name, list) > 0;
    (void)H5Pclose(list);
    return there;
}

static void check_filters(reader *r, const set *d, hid_t plist, hsize_t chunk_bytes)
{
    unsigned flags, value[8], config;
    char name[32], text[120];
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
        if (H5Zfilter_avail(filter) <= 0) {
            (void)snprintf(text, sizeof text, "packed with filter %d (%.30s), which is not there; "
                           "repack it: h5repack -f GZIP=6", (int)filter, name);
            stop_at(r, d, text);
        }
        if (filter == LZF_FILTER && (n < 3 || value[2] != chunk_bytes))
            stop_at(r, d, "LZF filter and chunk differ in size: the file is damaged");
    }
}

/* Layout on disk: no chunk too large for memory, no other file, and no more numbers than the bytes
   stored can hold, so that a false extent is found now and not after hours of zeros. */
static void check_storage(reader *r, set *d, size_t size)
{
    hid_t plist = H5Dget_create_plist(d->id);
    H5D_layout_t kind = plist < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(plist);
    hsize_t stored = H5Dget_storage_size(d->id), chunk_bytes = size;
    double numbers = 1, most = (double)stored;
    int i;
    for (i = 0; i < RANK_MOST; i++) d->chunk[i] = 1;
    for (i = 0; i < d->rank; i++) numbers *= (double)d->size[i];
    if (kind != H5D_COMPACT && kind != H5D_CONTIGUOUS && kind != H5D_CHUNKED)
        stop_at(r, d, "stored in a way that is not supported (virtual, or damaged)");
    if (kind == H5D_CONTIGUOUS && H5Pget_external_count(plist) != 0)
        stop_at(r, d, "its numbers are in another file");
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
    if (numbers * (double)size > most)
        stop_at(r, d, "more numbers than the file holds bytes for: damaged or never filled");
    (void)H5Pclose(plist);
}

/* Opens a dataset of numbers; `whole`: of whole numbers. */
static void set_open(reader *r, hid_t file, const char *name, int whole, set *d)
{
    hid_t list = H5Pcreate(H5P_DATASET_ACCESS), type, space;
    H5T_class_t kind;
    memset(d, 0, sizeof *d);
    (void)snprintf(d->name, sizeof d->name, "%s", name);
    if (!has(r, file, name)) stop(r, CALOMU_EFORMAT, "%s: no dataset /%s in it", r->path, name);
    if (list < 0 || H5Pset_elink_cb(list, no_other_file, NULL) < 0
        || H5Pset_chunk_cache(list, 12421, (size_t)CHUNK_MOST, 1.0) < 0)
        stop(r, CALOMU_EMEMORY, "%s: HDF5 library: no memory", r->path);
    d->id = H5Dopen2(file, name, list);
    if (d->id < 0) stop(r, CALOMU_EFORMAT, "%s: /%s is no dataset, or damaged", r->path, name);
    type = H5Dget_type(d->id);
    space = H5Dget_space(d->id);
    kind = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    if (kind != H5T_INTEGER && (whole || kind != H5T_FLOAT))
        stop(r, CALOMU_EFORMAT, "%s: /%s holds no %snumbers", r->path, name, whole ? "whole " : "");
    d->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (d->rank < 1 || d->rank > RANK_MOST || H5Sget_simple_extent_dims(space, d->size, NULL) < 0)
        stop(r, CALOMU_EFORMAT, "%s: /%s has %d dimensions, or is damaged", r->path, name, d->rank);
    check_storage(r, d, H5Tget_size(type));
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    (void)H5Pclose(list);
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

static void view_close(view *v)
{
    free(v->bytes);
    v->bytes = NULL;
}

static void view_load(view *v, uint64_t i)
{
    hsize_t n;
    hid_t file = H5Dget_space(v->d.id), memory;
    char text[100];
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
        (void)snprintf(text, sizeof text, "cannot be read from %llu on: the file is damaged or "
                       "truncated", (unsigned long long)v->first);
        stop_at(v->r, &v->d, text);
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
static int64_t whole_at(view *v, uint64_t i) { return *(const int64_t *)view_at(v, i); }

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

static char *text_of_set(reader *r, hid_t file, const char *name)
{
    hid_t id;
    char *text = NULL;
    if (!has(r, file, name)) stop(r, CALOMU_EFORMAT, "%s: no text /%s in it", r->path, name);
    id = H5Dopen2(file, name, H5P_DEFAULT);
    if (id >= 0) text = text_read(r, id, 0);
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
} source;

static calomu_hit *hit_room(reader *r, size_t n)
{
    calomu_hit *bigger;
    if (n <= r->room) return r->hits;
    n += n / 2;
    bigger = take(r, n, sizeof *bigger);
    if (r->room) memcpy(bigger, r->hits, r->room * sizeof *bigger);
    free(r->hits);
    r->hits = bigger;
    r->room = n;
    return bigger;
}

/* Energy of a hit in GeV; `where`: its number in the dataset. */
static float hit_energy(reader *r, const source *s, const view *v, float energy, uint64_t muon)
{
    char text[120];
    if (!(energy >= 0 && energy <= 3e38f)) {
        (void)snprintf(text, sizeof text, "muon %llu has a hit of energy %g",
                       (unsigned long long)muon, (double)energy);
        stop_at(r, &v->d, text);
    }
    return s->mev ? (float)(energy * 1e-3) : energy;
}

static void send_muon(reader *r, packet *p, size_t hits, const float *features)
{
    p->kind = PACKET_MUON;
    p->n = hits;
    p->features = features != NULL;
    p->file = r->file;
    reader_send(r, p, r->hits, hits * sizeof *r->hits);
    if (features && fwrite(features, sizeof *features, CALOMU_FEATURES, r->pipe) != CALOMU_FEATURES)
        _exit(CALOMU_EIO);
    alive();
}

static void too_many(reader *r, const view *v, uint64_t muon)
{
    char text[120];
    (void)snprintf(text, sizeof text, "muon %llu has more hits than there are cells",
                   (unsigned long long)muon);
    stop_at(r, &v->d, text);
}

static uint64_t cells(const source *s)
{
    return (uint64_t)s->info.geometry.nz * (uint64_t)s->info.geometry.nx
           * (uint64_t)s->info.geometry.ny;
}

/* The number of one value per muon, or absent: float32, finite. */
static float truth_at(view *v, int there, uint64_t i)
{
    char text[100];
    float x;
    if (!there) return CALOMU_ABSENT;
    x = float_at(v, i);
    if (!isfinite(x)) {
        (void)snprintf(text, sizeof text, "muon %llu has the value %g", (unsigned long long)i,
                       (double)x);
        stop_at(v->r, &v->d, text);
    }
    return x;
}

/* ---- energy unit and geometry */

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
    int have[4], differ = 0, i;
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
        differ |= g->pitch[i] != given->pitch[i] || g->origin[i] != given->origin[i];
    }
    if (have[3]) g->field = field;
    differ |= g->nz != given->nz || g->nx != given->nx || g->ny != given->ny
              || g->field != given->field;
    if (r->job->geometry_given && differ)
        stop(r, CALOMU_EUSAGE, "%s: its geometry is not that of --geometry; leave it out", r->path);
    check_geometry(r, g);
}

/* ---- geant4 */

static void geant4_survey(reader *r, source *s)
{
    set offset, cell, energy;
    view v;
    char *unit = NULL, shape[128];
    hid_t id;
    set_open(r, s->file, "event_offset", 1, &offset);
    set_open(r, s->file, "cell", 1, &cell);
    set_open(r, s->file, "energy", 0, &energy);
    if (H5Aexists(s->file, "energy_unit") > 0) {
        id = H5Aopen(s->file, "energy_unit", H5P_DEFAULT);
        unit = id < 0 ? NULL : text_read(r, id, 1);
        if (!unit) stop(r, CALOMU_EFORMAT, "%s: attribute energy_unit is no text", r->path);
        (void)H5Aclose(id);
    }
    settle_unit(r, s, unit);
    settle_geometry(r, s);
    if (offset.rank != 1 || offset.size[0] < 1) stop_at(r, &offset, "must be (muons + 1,)");
    if (cell.rank != 1) stop_at(r, &cell, "must be (hits,)");
    if (energy.rank != 1 || energy.size[0] != cell.size[0])
        stop(r, CALOMU_EFORMAT, "%s: /energy must have the shape of /cell, %s", r->path,
             shape_text(&cell, shape));
    s->muons = offset.size[0] - 1;
    view_open(r, &offset, 0, -1, H5T_NATIVE_INT64, &v);
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
    if (!has(r, s->file, name)) return 0;
    set_open(r, s->file, name, 0, &d);
    if (!(d.rank == 1 || (d.rank == 2 && d.size[1] == 1)) || d.size[0] != s->muons)
        stop_at(r, &d, "must be one number per muon");
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, v);
    return 1;
}

static void geant4_muon(reader *r, const source *s, view *cell, view *energy, int64_t from,
                        int64_t to, uint64_t muon)
{
    uint64_t i, n = (uint64_t)(to - from), most = cells(s);
    calomu_hit *hit;
    char text[120];
    int64_t c;
    if (n > most) too_many(r, cell, muon);
    hit = hit_room(r, (size_t)n);
    for (i = 0; i < n; i++) {
        c = whole_at(cell, (uint64_t)from + i);
        if (c < 0 || (uint64_t)c >= most) {
            (void)snprintf(text, sizeof text, "muon %llu has a hit in cell %lld of %llu",
                           (unsigned long long)muon, (long long)c, (unsigned long long)most);
            stop_at(r, &cell->d, text);
        }
        hit[i].cell = (uint32_t)c;
        hit[i].energy = hit_energy(r, s, energy, float_at(energy, (uint64_t)from + i), muon);
    }
}

static void geant4_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    static const char *const name[] = { "e_true", "x", "y", "charge" };
    set d;
    view offset, cell, energy, truth[4];
    int there[4], i;
    int64_t from, to;
    uint64_t muon;
    packet p;
    memset(&p, 0, sizeof p);
    set_open(r, s->file, "event_offset", 1, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_INT64, &offset);
    set_open(r, s->file, "cell", 1, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_INT64, &cell);
    set_open(r, s->file, "energy", 0, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &energy);
    for (i = 0; i < 4; i++) {
        there[i] = i == 3 && r->job->no_charge ? 0 : truth_open(r, s, name[i], &truth[i]);
        if (!there[i]) note(r, "%s: no %s: absent in the data file", r->path, name[i]);
    }
    if (there[1] != there[2])
        stop(r, CALOMU_EFORMAT, "%s: has only one of /x and /y", r->path);
    for (muon = low; muon < high; muon++) {
        from = whole_at(&offset, muon);
        to = whole_at(&offset, muon + 1);
        if (from < 0 || to < from || (uint64_t)to > cell.length)
            stop_at(r, &offset.d, "must not fall, nor pass the number of hits");
        geant4_muon(r, s, &cell, &energy, from, to, muon);
        p.energy = truth_at(&truth[0], there[0], muon);
        p.x = truth_at(&truth[1], there[1], muon);
        p.y = truth_at(&truth[2], there[2], muon);
        p.charge = truth_at(&truth[3], there[3], muon);
        if (there[3] && p.charge != 1 && p.charge != -1)
            stop_at(r, &truth[3].d, "a charge that is not +1 or -1; for files that keep something "
                    "else there: --no-charge");
        send_muon(r, &p, (size_t)(to - from), NULL);
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
        set_open(r, s->file, name, 0, &targets);
        if (!(targets.rank == 1 || (targets.rank == 2 && targets.size[1] == 1)))
            stop_at(r, &targets, "must be (muons, 1) or (muons,)");
        fold_name(&s->folds[i], "inputs", name);
        set_open(r, s->file, name, 0, &inputs);
        if (inputs.rank != 2 || inputs.size[0] != targets.size[0]
            || inputs.size[1] != CALOMU_FEATURES)
            stop_at(r, &inputs, "must be (muons, 28), with as many muons as targets has");
        fold_name(&s->folds[i], "matrix_inputs", name);
        set_open(r, s->file, name, 0, &matrix);
        if (matrix.rank != 2 || matrix.size[0] != 6) stop_at(r, &matrix, "must be (6, hits)");
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
    char text[120];
    if (!(value >= 0 && value < limit) || value != floor(value)) {
        (void)snprintf(text, sizeof text, "hit %llu has %s %g", (unsigned long long)i,
                       what[row->start[0]], value);
        stop_at(row->r, &row->d, text);
    }
    return (uint32_t)value;
}

/* The hits of the muon that begins at *at into r->hits; returns how many. */
static size_t fold_hits(reader *r, const source *s, view row[6], uint64_t muon, double muons,
                        uint64_t *at)
{
    const calomu_geometry *g = &s->info.geometry;
    uint64_t most = cells(s);
    uint32_t event, z, x, y;
    calomu_hit *hit;
    size_t n = 0;
    for (; *at < row[0].length; ++*at) {
        event = matrix_whole(&row[1], *at, muons);
        if (event > muon) break;
        if (event < muon) stop_at(r, &row[1].d, "its hits are not sorted by event");
        if (n == most) too_many(r, &row[0], muon);
        (void)matrix_whole(&row[2], *at, 1);
        z = matrix_whole(&row[3], *at, g->nz);
        x = matrix_whole(&row[4], *at, g->nx);
        y = matrix_whole(&row[5], *at, g->ny);
        hit = hit_room(r, n + 1) + n;
        hit->cell = (z * (uint32_t)g->nx + x) * (uint32_t)g->ny + y;
        hit->energy = hit_energy(r, s, &row[0], float_at(&row[0], *at), muon);
        n++;
    }
    return n;
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
    set_open(r, s->file, name, 0, &d);
    for (i = 0; i < 6; i++)
        view_open(r, &d, 1, i, i ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT, &row[i]);
    fold_name(f, "inputs", name);
    set_open(r, s->file, name, 0, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &inputs);
    fold_name(f, "targets", name);
    set_open(r, s->file, name, 0, &d);
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
        send_muon(r, &p, n, features);
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
    set_open(r, s->file, "E", 0, &d);
    if (!(d.rank == 4 || (d.rank == 5 && d.size[1] == 1)))
        stop_at(r, &d, "must be (muons, 1, nz, nx, ny) or (muons, nz, nx, ny)");
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
    set_open(r, s->file, "y", 0, &d);
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
    set_open(r, s->file, "E", 0, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &energy);
    set_open(r, s->file, "y", 0, &d);
    view_open(r, &d, 0, -1, H5T_NATIVE_FLOAT, &target);
    p.x = p.y = p.charge = CALOMU_ABSENT;
    (void)hit_room(r, (size_t)most);
    for (muon = low; muon < high; muon++) {
        e = view_at(&energy, muon);
        for (i = n = 0; i < most; i++) {
            if (e[i] == 0) continue;
            r->hits[n].cell = (uint32_t)i;
            r->hits[n++].energy = hit_energy(r, s, &energy, e[i], muon);
        }
        p.energy = fabsf(truth_at(&target, 1, muon));
        send_muon(r, &p, n, NULL);
    }
}

/* ---- any */

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
    if (l->layout == LAYOUT_AUTO) l->layout = found;
    if (n < 120)
        (void)snprintf(l->text + n, sizeof l->text - n, "%s%.40s", n ? ", " : "", name);
    return 0;
}

static void source_open(reader *r, const char *path, source *s)
{
    struct stat about;
    listing l;
    memset(s, 0, sizeof *s);
    memset(&l, 0, sizeof l);
    r->path = path;
    alive();
    if (stat(path, &about) != 0) stop(r, CALOMU_EIO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode)) stop(r, CALOMU_EFORMAT, "%s: not a regular file", path);
    if (access(path, R_OK) != 0) stop(r, CALOMU_EIO, "%s: %s", path, strerror(errno));
    if (H5Fis_hdf5(path) <= 0) stop(r, CALOMU_EFORMAT, "%s: not an HDF5 file", path);
    s->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (s->file < 0)
        stop(r, CALOMU_EFORMAT, "%s: cannot be opened: the file is damaged or truncated", path);
    s->layout = (layout)r->job->layout;
    if (s->layout == LAYOUT_AUTO) {
        if (H5Literate(s->file, H5_INDEX_NAME, H5_ITER_INC, NULL, listing_add, &l) < 0)
            stop(r, CALOMU_EFORMAT, "%s: its contents cannot be listed: damaged", path);
        s->layout = l.layout;
    }
    if (s->layout == LAYOUT_AUTO)
        stop(r, CALOMU_EFORMAT, "%s: none of the layouts geant4, foldfile, perfile; it holds: %s",
             path, l.text[0] ? l.text : "nothing");
    if (r->job->fold >= 0 && s->layout != LAYOUT_FOLDFILE)
        stop(r, CALOMU_EUSAGE, "%s: --fold is for the layout foldfile; this is %s", path,
             layout_names[s->layout]);
    s->info.feature_options = calomu_feature_options_default();
    if (s->layout == LAYOUT_GEANT4) geant4_survey(r, s);
    else if (s->layout == LAYOUT_FOLDFILE) fold_survey(r, s);
    else perfile_survey(r, s);
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

static void source_close(source *s)
{
    (void)H5Fclose(s->file);
    free(s->folds);
}

static int same_info(const calomu_data_info *a, const calomu_data_info *b)
{
    const calomu_geometry *g = &a->geometry, *h = &b->geometry;
    int same = g->nz == h->nz && g->nx == h->nx && g->ny == h->ny && g->field == h->field
               && a->features == b->features
               && a->feature_options.convention == b->feature_options.convention;
    int i;
    for (i = 0; i < 3; i++)
        same = same && g->pitch[i] == h->pitch[i] && g->origin[i] == h->origin[i];
    return same;
}

static void source_deliver(reader *r, source *s, uint64_t low, uint64_t high)
{
    if (s->layout == LAYOUT_GEANT4) geant4_deliver(r, s, low, high);
    else if (s->layout == LAYOUT_FOLDFILE) fold_deliver(r, s, low, high);
    else perfile_deliver(r, s, low, high);
}

/* Looks at all files first, so that what does not fit together is said before work is done. */
static void reader_run(reader *r)
{
    const order *job = r->job;
    source s;
    packet p;
    uint64_t total = 0, begin = 0, end, low, high;
    int i;
    memset(&p, 0, sizeof p);
    p.kind = PACKET_HEAD;
    for (i = 0; i < job->paths; i++) {
        source_open(r, job->path[i], &s);
        source_describe(r, &s);
        if (i > 0 && !same_info(&s.info, &p.info))
            stop(r, CALOMU_EFORMAT, "%s: its geometry or features are not those of %s", r->path,
                 job->path[0]);
        p.info = s.info;
        total += s.muons;
        source_close(&s);
    }
    if (job->first > total || (job->count != UINT64_MAX && job->count > total - job->first))
        stop(r, CALOMU_EUSAGE, "--first and --count go past the end: there are %llu muons",
             (unsigned long long)total);
    high = job->count == UINT64_MAX ? total : job->first + job->count;
    p.total = high - job->first;
    reader_send(r, &p, NULL, 0);
    for (i = 0; i < job->paths; i++, begin = end) {
        r->file = i;
        source_open(r, job->path[i], &s);
        end = begin + s.muons;
        low = job->first > begin ? job->first - begin : 0;
        if (end > job->first && begin < high)
            source_deliver(r, &s, low, (high < end ? high : end) - begin);
        source_close(&s);
    }
    memset(&p, 0, sizeof p);
    p.kind = PACKET_END;
    reader_send(r, &p, NULL, 0);
    if (fflush(r->pipe) != 0) _exit(CALOMU_EIO);
}

static herr_t look_for_errno(unsigned n, const H5E_error2_t *e, void *user)
{
    const char *number = e->desc ? strstr(e->desc, "errno = ") : NULL;
    int *error = user;
    (void)n;
    if (number && !*error) *error = (int)strtol(number + 8, NULL, 10);
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
    "Layouts: geant4 (event_offset, cell, energy, e_true, x, y, charge), foldfile (the authors'\n"
    "public files: fold_i/inputs, targets, matrix_inputs) and perfile (E, y, meta).  Several\n"
    "files of the same geometry become one data file, in the order given.  The energy unit is\n"
    "that of the hits; true energies are in GeV always.  Numbers of muons count from 0.\n\n"
    "Exit codes: 0 done, 2 usage, 3 bad or inconsistent file, 4 reading or writing failed,\n"
    "5 no memory.";

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
          .value = "auto|geant4|foldfile|perfile", .help = "layout of the files" },
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
    return (int)keeper_run(job);
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
