# Two corrections of include folders for ROS 2 from pip wheels. On a normal ROS 2 installation the
# conditions never hold and nothing changes.

# The wheels export targets that name include folders of the machine that built the wheels, and
# CMake stops on a folder that does not exist. Drop those here; the installed files stay as they are.
function(drop_missing_includes)
  get_directory_property(targets IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      if(folder MATCHES "\\$<" OR EXISTS "${folder}")
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    if(NOT "${kept}" STREQUAL "${folders}")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
    endif()
  endforeach()
endfunction()

# NumPy's headers lie below the source folder when the virtual environment does; CMake refuses such
# a folder in an exported target, and whoever links the installed target has headers of their own.
function(keep_source_includes_private target)
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  set(wrapped "")
  foreach(folder IN LISTS folders)
    string(FIND "${folder}" "${CMAKE_CURRENT_SOURCE_DIR}/" position)
    if(position EQUAL 0)
      set(folder "$<BUILD_INTERFACE:${folder}>")
    endif()
    list(APPEND wrapped "${folder}")
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${wrapped}")
endfunction()
