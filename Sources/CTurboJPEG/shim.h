#pragma once
#include <turbojpeg.h>

// The TurboJPEG functions do not say which release they are of; the header of the libjpeg ones does,
// where it is installed.
#if __has_include(<jconfig.h>)
#include <jconfig.h>
#endif

// Such as 2001005 for 2.1.5; 0 where the headers do not say.
static inline int lineup_libjpeg_turbo_release(void) {
#ifdef LIBJPEG_TURBO_VERSION_NUMBER
    return LIBJPEG_TURBO_VERSION_NUMBER;
#else
    return 0;
#endif
}
