/* Links the library, a user of it and two static copies into one program: no symbol clashes. */
int use_library(void);
int use_first_copy(void);
int use_second_copy(void);

int main(void) {
    return use_library() == 1 && use_first_copy() == 1 && use_second_copy() == 1 ? 0 : 1;
}
