#pragma once
#include <hdf5.h>

// What the library has as macros over variables, which Swift cannot read.

static inline hid_t lineup_h5_float32(void) { return H5T_NATIVE_FLOAT; }
static inline hid_t lineup_h5_int64(void) { return H5T_NATIVE_INT64; }
static inline hid_t lineup_h5_stored_float32(void) { return H5T_IEEE_F32LE; }
static inline hid_t lineup_h5_stored_int64(void) { return H5T_STD_I64LE; }
static inline hid_t lineup_h5_text(void) { return H5T_C_S1; }
static inline size_t lineup_h5_of_any_length(void) { return H5T_VARIABLE; }
static inline unsigned lineup_h5_new(void) { return H5F_ACC_EXCL; }
static inline unsigned lineup_h5_read_only(void) { return H5F_ACC_RDONLY; }

// Names are UTF-8.
static inline hid_t lineup_h5_names(void) {
    hid_t list = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_char_encoding(list, H5T_CSET_UTF8);
    return list;
}

// Things at the root, -1 where they cannot be counted.
static inline long long lineup_h5_link_count(hid_t file) {
    H5G_info_t info;
    return H5Gget_info(file, &info) < 0 ? -1 : (long long)info.nlinks;
}

// The library prints its stack of errors unless told not to.
static inline void lineup_h5_be_quiet(void) { H5Eset_auto2(H5E_DEFAULT, NULL, NULL); }

static inline herr_t lineup_h5_visit(unsigned place, const H5E_error2_t *error, void *text) {
    if (place == 0 && error->desc) {
        char *out = (char *)text;
        int k = 0;
        for (; error->desc[k] && k < 199; ++k) out[k] = error->desc[k];
        out[k] = 0;
    }
    return 0;
}

// What went wrong in the last call, innermost, into 200 bytes.
static inline void lineup_h5_explain(char *text) {
    text[0] = 0;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, lineup_h5_visit, text);
}
